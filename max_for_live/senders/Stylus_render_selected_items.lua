-- REAPER: renders the selected items in the sound of a reference, and adds each stem to its item as a new take.
--
-- Actions > Show action list > New action > Load ReaScript. The Stylus daemon has to run, and to know the project's
-- folder (`stylus root add FOLDER`). Items stay as they are; undo takes the new takes away again.

local LOOK = 0.5 -- seconds between two looks for results

local function shown(text) reaper.MB(text, "Stylus", 0) end

-- The path of `stylus`, as `stylus doctor` has recorded it: REAPER does not know the shell's PATH.
local function executable()
  local home = os.getenv("STYLUS_HOME")
  if not home then
    local system = reaper.GetOS()
    if system:match("^Win") then home = (os.getenv("LOCALAPPDATA") or "") .. "\\stylus-audio"
    elseif system:match("^OSX") or system:match("^macOS") then
      home = os.getenv("HOME") .. "/Library/Application Support/stylus-audio"
    else home = (os.getenv("XDG_DATA_HOME") or os.getenv("HOME") .. "/.local/share") .. "/stylus-audio" end
  end
  local file = io.open(home .. "/installed.json", "r")
  if not file then return nil end
  local path = file:read("a"):match('"executable"%s*:%s*"(.-[^\\])"')
  file:close()
  path = path and path:gsub("\\\\", "\\"):gsub('\\"', '"')
  -- It may have been removed since.
  local there = path and io.open(path, "rb")
  if not there then return nil end
  there:close()
  return path
end

local function quoted(text)
  if reaper.GetOS():match("^Win") then return '"' .. text:gsub('"', "") .. '"' end
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- What of its file an item plays, in seconds; nil and a reason where it cannot be rendered.
local function segment(item)
  local take = reaper.GetActiveTake(item)
  if not take then return nil, "an empty item" end
  if reaper.TakeIsMIDI(take) then return nil, "a MIDI item: render it to audio first" end
  local source = reaper.GetMediaItemTake_Source(take)
  if reaper.GetMediaSourceParent(source) then return nil, "a section or reversed source: glue it first" end
  if reaper.GetTakeNumStretchMarkers(take) > 0 then return nil, "an item with stretch markers: glue it first" end
  local length = reaper.GetMediaSourceLength(source)
  local start = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS")
  local played = reaper.GetMediaItemInfo_Value(item, "D_LENGTH") * reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE")
  local first, last = math.max(start, 0), math.min(start + played, length)
  -- A looped item that goes over its file's end plays its beginning too. A millionth of a second is a rounding error.
  local over = start < 0 or start + played > length + 1e-6
  if over and reaper.GetMediaItemInfo_Value(item, "B_LOOPSRC") ~= 0 then first, last = 0, length end
  if last <= first then return nil, "an item beyond the end of its file" end
  return { project = reaper.GetItemProjectContext(item), item = item, take = take,
           file = reaper.GetMediaSourceFileName(source, ""), first = first, last = last, before = first - start }
end

-- Whether what is to get the stem is still there: it may have been deleted, glued or closed meanwhile.
local function there(job)
  return reaper.ValidatePtr2(0, job.project, "ReaProject*") and reaper.ValidatePtr2(job.project, job.item, "MediaItem*")
    and reaper.ValidatePtr2(job.project, job.take, "MediaItem_Take*")
end

local KEPT = { "D_PLAYRATE", "D_PITCH", "B_PPITCH", "D_VOL", "D_PAN", "I_PITCHMODE", "I_CHANMODE" }

local function add_take(job, stem)
  reaper.Undo_BeginBlock2(job.project)
  local take = reaper.AddTakeToMediaItem(job.item)
  reaper.SetMediaItemTake_Source(take, reaper.PCM_Source_CreateFromFile(stem))
  for _, name in ipairs(KEPT) do
    reaper.SetMediaItemTakeInfo_Value(take, name, reaper.GetMediaItemTakeInfo_Value(job.take, name))
  end
  reaper.SetMediaItemTakeInfo_Value(take, "D_STARTOFFS", -job.before)
  reaper.GetSetMediaItemTakeInfo_String(take, "P_NAME", stem:match("[^/\\]+$"), true)
  reaper.SetActiveTake(take)
  reaper.Undo_EndBlock2(job.project, "Stylus: add take", -1)
  reaper.UpdateArrange()
end

-- What was typed, as options of `stylus send`; nil and the word that is none.
local function options(values)
  local words = {}
  for word in values:gmatch("%S+") do
    local name, value = word:match("^(%a[%w_-]*)=(%S+)$")
    if not name then return nil, word end
    -- In one word, as a negative number by itself would be an option.
    words[#words + 1] = quoted("--" .. name:gsub("_", "-") .. "=" .. value)
  end
  return words
end

-- `stylus send` runs beside REAPER, and its report is there whole when it ends.
local function send(stylus, reference, more, job, number)
  job.report = reaper.GetResourcePath() .. "/stylus-" .. math.floor(reaper.time_precise() * 1000) .. "-" .. number .. ".json"
  local words = { quoted(stylus), "send", quoted(job.file), "--style", quoted(reference), "--start",
    string.format("%.6f", job.first), "--end", string.format("%.6f", job.last), "--report", quoted(job.report) }
  reaper.ExecProcess(table.concat(words, " ") .. " " .. table.concat(more, " "), -1)
end

-- The report's texts are UTF-8; only quotes and backslashes are escaped in a path or a message.
local function unescaped(text) return (text:gsub("\\(.)", "%1")) end

local function reported(job)
  local file = io.open(job.report, "r")
  if not file then return false end
  local text = file:read("a")
  file:close()
  os.remove(job.report)
  local stem = text:match('"stem"%s*:%s*"(.-[^\\])"')
  if stem and there(job) then add_take(job, unescaped(stem))
  elseif stem then shown("The item is gone. Its stem is " .. unescaped(stem))
  else shown(unescaped(text:match('"message"%s*:%s*"(.-[^\\])"') or text)) end
  return true
end

local function wait(jobs)
  local looked = 0
  local function look()
    if reaper.time_precise() - looked > LOOK then
      looked = reaper.time_precise()
      for number = #jobs, 1, -1 do
        if reported(jobs[number]) then table.remove(jobs, number) end
      end
    end
    if #jobs > 0 then reaper.defer(look) end
  end
  look()
end

local function main()
  local stylus = executable()
  if not stylus then return shown("Run `stylus doctor` once in a terminal, so that REAPER can find Stylus.") end
  local jobs, why = {}, "Select an audio item first."
  for number = 0, reaper.CountSelectedMediaItems(0) - 1 do
    local job, reason = segment(reaper.GetSelectedMediaItem(0, number))
    if job then jobs[#jobs + 1] = job else why = "Left out: " .. reason end
  end
  if #jobs == 0 or why:match("^Left out") then shown(why) end
  if #jobs == 0 then return end
  local chosen, reference = reaper.GetUserFileNameForRead("", "The sound to take", "")
  if not chosen then return end
  local fine, values = reaper.GetUserInputs("Stylus", 1, "Options (keep=0.6 mix=0.8),extrawidth=160", "")
  if not fine then return end
  local more, wrong = options(values)
  if not more then return shown('"' .. wrong .. '" is no option: they are NAME=VALUE, such as keep=0.6.') end
  for number, job in ipairs(jobs) do send(stylus, reference, more, job, number) end
  wait(jobs)
end

main()
