// Reads the Set and its clips: which file, which part of it, and how a stem's clip has to be to play alike.
//
// For Max's `js`, by require("stylus_clip"): ES5, and nothing of Live before `loaded`.

/** Where warp markers count as one, seconds. */
var AUDIBLE = 0.001;

/** What a stem's clip takes over from its original as it is. */
var COPIED = ["gain", "pitch_coarse", "pitch_fine", "color"];

// Live's objects

/** The Live object of a path or an id. */
function live(where) {
  return new LiveAPI(typeof where === "number" ? "id " + where : where);
}

function text(object, property) {
  return [].concat(object.get(property)).join(" ");
}

function number(object, property) {
  return Number([].concat(object.get(property))[0]) || 0;
}

/** The ids of a list of children, or of one. */
function ids(object, property) {
  return [].concat(object.get(property)).filter(function (word) {
    return word !== "id" && Number(word) > 0;
  }).map(Number);
}

function firstId(object, property) {
  return ids(object, property)[0] || 0;
}

function exists(id) {
  return id > 0 && Number(live(id).id) === id;
}

/** The track that a clip, slot or device is on, through chains and lanes. */
function trackOf(object) {
  for (var level = 0; level < 20 && Number(object.id); level++) {
    if (object.type === "Track") return Number(object.id);
    object = live(firstId(object, "canonical_parent"));
  }
  return 0;
}

function deviceTrack() {
  return trackOf(live("this_device"));
}

/** Where the Set is saved; "" for an unsaved one, and where Live does not tell (before 11.3). */
function setPath() {
  var path = text(live("live_set"), "file_path");
  return path === "0" ? "" : toPath(path);
}

/** Live's version as one number that can be compared. */
function version() {
  var app = live("live_app");
  return ["get_major_version", "get_minor_version", "get_bugfix_version"].reduce(function (sum, part) {
    return sum * 1000 + Number([].concat(app.call(part))[0]);
  }, 0);
}

/**
 * Max's path of a file as the system has it: "Macintosh HD:/Users/x" is "/Users/x", as Live says it. Everything else is
 * on a volume: that of the boot disk is a link to its top, and disks of samples have a Library too.
 */
function toPath(path) {
  var parts = /^([^\/\\:]{2,}):(\/.*)$/.exec(path);
  if (!parts) return path;
  return /^\/(Users|private|tmp)\//.test(parts[2]) ? parts[2] : "/Volumes/" + parts[1] + parts[2];
}

// Reading

/** The selected clip's id: what Live's detail view shows, else what lies in the highlighted slot; 0 for none. */
function selected() {
  var view = live("live_set view");
  var shown = firstId(view, "detail_clip");
  if (shown) return shown;
  var slot = firstId(view, "highlighted_clip_slot");
  return slot ? firstId(live(slot), "clip") : 0;
}

/** Ids of a track's audio clips: session slots from above, then the arrangement in time. */
function clipsOf(track) {
  var object = live(track);
  var slots = ids(object, "clip_slots").map(function (slot) {
    return firstId(live(slot), "clip");
  });
  return slots.filter(Boolean).concat(arranged(object)).filter(function (clip) {
    return number(live(clip), "is_audio_clip");
  });
}

function arranged(track) {
  return ids(track, "arrangement_clips").sort(function (one, other) {
    return number(live(one), "start_time") - number(live(other), "start_time");
  });
}

/** All that a render and its stem need to know of a clip; `{problem}`, in words, where it cannot be rendered. */
function read(id) {
  var clip = live(id);
  var info = { id: id, name: text(clip, "name") };
  if (!number(clip, "is_audio_clip")) return { problem: info.name + " is a MIDI clip; freeze and flatten it first" };
  if (number(clip, "is_recording")) return { problem: info.name + " is being recorded; stop that first" };
  ["warping", "warp_mode", "looping", "start_marker", "end_marker", "loop_start", "loop_end", "sample_rate",
    "sample_length", "start_time"].concat(COPIED).forEach(function (property) {
    info[property] = number(clip, property);
  });
  info.file = toPath(text(clip, "file_path"));
  if (!info.file || !info.sample_rate) return { problem: info.name + " has no audio file" };
  info.warp_markers = info.warping ? markers(clip) : [];
  // A clip that starts behind its loop plays to its end, once.
  info.looping = info.looping && info.start_marker < info.loop_end ? 1 : 0;
  info.arranged = number(clip, "is_arrangement_clip") === 1;
  info.slot = info.arranged ? 0 : firstId(clip, "canonical_parent");
  info.track = trackOf(clip);
  return info;
}

/** All warp markers in order; the last is hidden in Live, and gives the last stretch its tempo. */
function markers(clip) {
  return JSON.parse(text(clip, "warp_markers")).warp_markers;
}

/** Linear from marker to marker, and straight on outside of them. */
function through(list, from, to, place) {
  var i = 0;
  while (i < list.length - 2 && place > list[i + 1][from]) i++;
  var a = list[i], b = list[i + 1];
  return a[to] + (place - a[from]) * (b[to] - a[to]) / (b[from] - a[from]);
}

/** Seconds of the file at a clip's place, which is beats where it is warped. */
function secondsAt(info, place) {
  return info.warping ? through(info.warp_markers, "beat_time", "sample_time", place) : place;
}

function placeAt(info, seconds) {
  return info.warping ? through(info.warp_markers, "sample_time", "beat_time", seconds) : seconds;
}

/** What of the file is heard: `{start, end}` in samples; `loops` where that is the loop and no more. */
function segment(info) {
  var first = info.looping ? Math.min(info.start_marker, info.loop_start) : info.start_marker;
  var start = Math.round(secondsAt(info, first) * info.sample_rate);
  var end = Math.round(secondsAt(info, info.looping ? info.loop_end : info.end_marker) * info.sample_rate);
  var inside = start >= 0 && end <= info.sample_length;
  return {
    start: Math.max(0, start), end: Math.min(info.sample_length, end),
    loops: info.looping === 1 && first === info.loop_start && inside
  };
}

/** A clip of the same file that plays a part of it once. */
function part(info, start, end) {
  var cut = JSON.parse(JSON.stringify(info));
  cut.looping = 0;
  cut.start_marker = placeAt(info, start / info.sample_rate);
  cut.end_marker = placeAt(info, end / info.sample_rate);
  return cut;
}

/** What the clip of a stem of `[start, end)` is to be: as its original, but counted from the stem's beginning. */
function copy(info, start, end) {
  var from = start / info.sample_rate, to = end / info.sample_rate, zero = placeAt(info, from);
  var made = {
    warping: info.warping, warp_mode: info.warp_mode, looping: info.looping, warp_markers: [],
    start_marker: info.start_marker - zero,
    end_marker: (info.looping ? info.loop_end : info.end_marker) - zero,
    loop_start: info.loop_start - zero, loop_end: info.loop_end - zero
  };
  COPIED.forEach(function (property) {
    made[property] = info[property];
  });
  if (!info.warping) return made;
  var inner = info.warp_markers.slice(0, -1).filter(function (marker) {
    return marker.sample_time > from + AUDIBLE && marker.sample_time < to - AUDIBLE;
  }).map(function (marker) {
    return { sample_time: marker.sample_time - from, beat_time: marker.beat_time - zero };
  });
  // No rounding may put it behind the stem's end.
  var last = { sample_time: (end - start) / info.sample_rate, beat_time: placeAt(info, to) - zero };
  made.warp_markers = [{ sample_time: 0, beat_time: 0 }].concat(inner, last);
  return made;
}

/** Shows the first clip in the Set that plays a file; false where there is none. */
function show(file) {
  var tracks = ids(live("live_set"), "tracks");
  for (var i = 0; i < tracks.length; i++) {
    var found = clipsOf(tracks[i]).filter(function (clip) {
      return toPath(text(live(clip), "file_path")) === file;
    })[0];
    if (found) {
      live("live_set view").set("detail_clip", "id", found);
      return true;
    }
  }
  return false;
}

exports.AUDIBLE = AUDIBLE;
exports.COPIED = COPIED;
exports.live = live;
exports.text = text;
exports.number = number;
exports.ids = ids;
exports.firstId = firstId;
exports.exists = exists;
exports.deviceTrack = deviceTrack;
exports.setPath = setPath;
exports.version = version;
exports.toPath = toPath;
exports.selected = selected;
exports.clipsOf = clipsOf;
exports.arranged = arranged;
exports.read = read;
exports.markers = markers;
exports.through = through;
exports.segment = segment;
exports.part = part;
exports.copy = copy;
exports.show = show;
