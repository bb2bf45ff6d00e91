-- What the script uses of REAPER: a project with alike items of one take. Prints what has become of them.
-- lua5.4 model.lua SCRIPT FILE LENGTH OFFSET RATE ITEM_LENGTH REFERENCE OPTIONS RESOURCES LOOPED ITEMS GONE MARKERS
-- GONE, "item" or "take", is deleted of the first one while it renders.

local script, file, length, offset, rate, item_length, reference, options, resources, looped, count, gone, markers = table.unpack(arg)
local project, items = { kind = "ReaProject*" }, {}
for number = 1, count do
  local item = { kind = "MediaItem*", D_LENGTH = tonumber(item_length), B_LOOPSRC = tonumber(looped) }
  item.active = { kind = "MediaItem_Take*", item = item, file = file, D_STARTOFFS = tonumber(offset),
                  D_PLAYRATE = tonumber(rate), D_PITCH = -2, D_VOL = 0.5, midi = file:match("%.mid$") ~= nil }
  item.takes = { item.active }
  items[number] = item
end
local waiting, blocks, slept = {}, 0, 0

-- As REAPER throws where it is handed what is no more.
local function valid(of)
  assert(not of.gone, of.kind .. " expected")
  return of
end

reaper = {
  GetOS = function() return "Other" end,
  GetResourcePath = function() return resources end,
  -- It goes on while nothing runs; os.clock does not.
  time_precise = function() return os.clock() + slept end,
  MB = function(text) print("message", text) end,
  ExecProcess = function(command, timeout)
    assert(timeout == -1, "it must not hold up REAPER")
    os.execute(command .. " >/dev/null 2>&1 &")
  end,
  defer = function(work) waiting[#waiting + 1] = work end,
  ValidatePtr2 = function(within, of, kind)
    assert(within == project or within == 0)
    return of.kind == kind and not of.gone
  end,
  CountSelectedMediaItems = function() return #items end,
  GetSelectedMediaItem = function(_, number) return items[number + 1] end,
  GetItemProjectContext = function() return project end,
  GetActiveTake = function(of) return of.active end,
  TakeIsMIDI = function(of) return of.midi end,
  GetMediaItemTake_Source = function(of) return of end,
  GetTakeNumStretchMarkers = function(of) return of.midi and 0 or tonumber(markers) end,
  GetMediaSourceParent = function() return nil end,
  GetMediaSourceLength = function() return tonumber(length), false end,
  GetMediaSourceFileName = function(of) return of.file end,
  GetMediaItemInfo_Value = function(of, name) return of[name] or 0 end,
  GetMediaItemTakeInfo_Value = function(of, name) return valid(of)[name] or 0 end,
  SetMediaItemTakeInfo_Value = function(of, name, value) of[name] = value end,
  GetSetMediaItemTakeInfo_String = function(of, name, value, set) if set then of[name] = value end end,
  GetUserFileNameForRead = function() return true, reference end,
  GetUserInputs = function() return true, options end,
  AddTakeToMediaItem = function(of)
    table.insert(valid(of).takes, { kind = "MediaItem_Take*", item = of })
    return of.takes[#of.takes]
  end,
  PCM_Source_CreateFromFile = function(path) return path end,
  SetMediaItemTake_Source = function(of, source) of.file = source end,
  SetActiveTake = function(of) of.item.active = of end,
  Undo_BeginBlock2 = function(of) assert(of == project) blocks = blocks + 1 end,
  Undo_EndBlock2 = function(of) assert(of == project) blocks = blocks - 1 end,
  UpdateArrange = function() end,
}

dofile(script)
if gone == "take" then table.remove(items[1].takes).gone = true end
if gone == "item" then
  items[1].takes[1].gone = true
  table.remove(items, 1).gone = true
end
while #waiting > 0 do
  os.execute("sleep 0.1")
  slept = slept + 0.1
  table.remove(waiting, 1)()
end
assert(blocks == 0)
for _, item in ipairs(items) do
  for number, one in ipairs(item.takes) do
    print("take", number, one.file, one.D_STARTOFFS, one.D_PLAYRATE, one.D_PITCH, one.D_VOL, one == item.active)
  end
end
