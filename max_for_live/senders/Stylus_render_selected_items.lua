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
  return path and path:gsub("\\\\", "\\"):gsub('\\"', '"')
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
  local length = reaper.GetMediaSourceLength(source)
  local start = reaper.GetMediaItemTakeInfo_Value(take, "D_STARTOFFS")
  local played = reaper.GetMediaItemInfo_Value(item, "D_LENGTH") * reaper.GetMediaItemTakeInfo_Value(take, "D_PLAYRATE")
  local first, last = math.max(start, 0), math.min(start + played, length)
  if last <= first then return nil, "an item beyond the end of its file" end
  return { item = item, take = take, file = reaper.GetMediaSourceFileName(source, ""), first = first, last = last,
           before = first - start }
end

local KEPT = { "D_PLAYRATE", "D_PITCH", "B_PPITCH", "D_VOL", "D_PAN", "I_PITCHMODE" }

local function add_take(job, stem)
  reaper.Undo_BeginBlock()
  local take = reaper.AddTakeToMediaItem(job.item)
  reaper.SetMediaItemTake_Source(take, reaper.PCM_Source_CreateFromFile(stem))
  for _, name in ipairs(KEPT) do
    reaper.SetMediaItemTakeInfo_Value(take, name, reaper.GetMediaItemTakeInfo_Value(job.take, name))
  end
  reaper.SetMediaItemTakeInfo_Value(take, "D_STARTOFFS", -job.before)
  reaper.GetSetMediaItemTakeInfo_String(take, "P_NAME", stem:match("[^/\\]+$"), true)
  reaper.SetActiveTake(take)
  reaper.Undo_EndBlock("Stylus: add take", -1)
  reaper.UpdateArrange()
end

-- `stylus send` runs beside REAPER, and its report is there whole when it ends.
local function send(stylus, reference, values, job, number)
  job.report = reaper.GetResourcePath() .. "/stylus-" .. math.floor(reaper.time_precise() * 1000) .. "-" .. number .. ".json"
  local words = { quoted(stylus), "send", quoted(job.file), "--style", quoted(reference), "--start",
    string.format("%.6f", job.first), "--end", string.format("%.6f", job.last), "--report", quoted(job.report) }
  for name, value in values:gmatch("([%w-]+)=([%w.:]+)") do
    words[#words + 1] = "--" .. name .. " " .. value
  end
  reaper.ExecProcess(table.concat(words, " "), -1)
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
  if stem then add_take(job, unescaped(stem))
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
  if #jobs == 0 then return shown(why) end
  local chosen, reference = reaper.GetUserFileNameForRead("", "The sound to take", "")
  if not chosen then return end
  local fine, values = reaper.GetUserInputs("Stylus", 1, "Options,extrawidth=160", "keep=0 amount=1 mix=1")
  if not fine then return end
  for number, job in ipairs(jobs) do send(stylus, reference, values, job, number) end
  wait(jobs)
end

main()
