-- What the script uses of REAPER: a project with one item of one take. Prints what has become of it.
-- lua5.4 model.lua SCRIPT FILE LENGTH OFFSET RATE ITEM_LENGTH REFERENCE OPTIONS RESOURCES

local script, file, length, offset, rate, item_length, reference, options, resources = table.unpack(arg)
local take = { file = file, D_STARTOFFS = tonumber(offset), D_PLAYRATE = tonumber(rate), D_PITCH = -2, D_VOL = 0.5,
               midi = file:match("%.mid$") ~= nil }
local item = { takes = { take }, active = take, D_LENGTH = tonumber(item_length) }
local waiting, blocks = {}, 0

reaper = {
  GetOS = function() return "Other" end,
  GetResourcePath = function() return resources end,
  time_precise = os.clock,
  MB = function(text) print("message", text) end,
  ExecProcess = function(command, timeout)
    assert(timeout == -1, "it must not hold up REAPER")
    os.execute(command .. " >/dev/null 2>&1 &")
  end,
  defer = function(work) waiting[#waiting + 1] = work end,
  CountSelectedMediaItems = function() return 1 end,
  GetSelectedMediaItem = function(_, number) return number == 0 and item or nil end,
  GetActiveTake = function(of) return of.active end,
  TakeIsMIDI = function(of) return of.midi end,
  GetMediaItemTake_Source = function(of) return of end,
  GetMediaSourceParent = function() return nil end,
  GetMediaSourceLength = function() return tonumber(length), false end,
  GetMediaSourceFileName = function(of) return of.file end,
  GetMediaItemInfo_Value = function(of, name) return of[name] or 0 end,
  GetMediaItemTakeInfo_Value = function(of, name) return of[name] or 0 end,
  SetMediaItemTakeInfo_Value = function(of, name, value) of[name] = value end,
  GetSetMediaItemTakeInfo_String = function(of, name, value, set) if set then of[name] = value end end,
  GetUserFileNameForRead = function() return true, reference end,
  GetUserInputs = function() return true, options end,
  AddTakeToMediaItem = function(of) of.takes[#of.takes + 1] = {} return of.takes[#of.takes] end,
  PCM_Source_CreateFromFile = function(path) return path end,
  SetMediaItemTake_Source = function(of, source) of.file = source end,
  SetActiveTake = function(of) item.active = of end,
  Undo_BeginBlock = function() blocks = blocks + 1 end,
  Undo_EndBlock = function() blocks = blocks - 1 end,
  UpdateArrange = function() end,
}

dofile(script)
while #waiting > 0 do
  os.execute("sleep 0.1")
  -- REAPER's clock goes on while nothing runs; os.clock does not.
  local clock = os.clock
  reaper.time_precise = function() return clock() + 1000 * math.random() + 1000 end
  table.remove(waiting, 1)()
end
assert(blocks == 0)
for number, one in ipairs(item.takes) do
  print("take", number, one.file, one.D_STARTOFFS, one.D_PLAYRATE, one.D_PITCH, one.D_VOL, one == item.active)
end
