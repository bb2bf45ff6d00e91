// Puts stems into Live as clips. What is there already is never changed, moved or removed.
//
// For Max's `js`, by require("stylus_stem"): ES5, and nothing of Live before `loaded`.

var clips = require("stylus_clip");

var live = clips.live, text = clips.text, number = clips.number, ids = clips.ids;

/** Beats, or seconds, that count as the same place. */
var TINY = 1e-6;

/** Where Live refuses a call, it throws or only prints, by version; what has come of it is looked at afterwards. */
function attempt(call) {
  try {
    call();
  } catch (refused) {
    return;
  }
}

/**
 * Puts a stem beside its original: `{clip, where}`, or `{problem}` where Live takes none.
 *
 * `place` is what `read` gave, or `{track}` alone. `warping` is set here and the rest later, by `dress`, since Live
 * switches it only after it has had a turn.
 */
function put(stem, place, name, warping) {
  if (clips.version() < 12000005) return { problem: "Live adds audio clips from 12.0.5 on" };
  if (!clips.exists(place.track)) return { problem: "its track is gone" };
  var made = place.arranged ? intoArrangement(stem, place) : intoSlot(stem, place);
  if (!made.clip) return made;
  var clip = live(made.clip);
  clip.set("name", name);
  if (warping === 0) clip.set("looping", 0);
  if (warping !== undefined) clip.set("warping", warping);
  return made;
}

/** Why a track takes no audio; "" where it should. */
function refusal(track) {
  if (number(track, "is_foldable")) return "a group track holds no clips";
  if (!number(track, "has_audio_input") || !ids(track, "clip_slots").length) return "its track takes no audio clips";
  return number(track, "is_frozen") ? "its track is frozen" : "";
}

/** What Live made, or why it should have made none. */
function outcome(track, clip, where) {
  if (clip) return { clip: clip, where: where };
  var armed = number(track, "can_be_armed") && number(track, "arm");
  var recording = armed && number(live("live_set"), "record_mode");
  return { problem: recording ? "its track is being recorded" : "Live did not take it" };
}

function intoSlot(stem, place) {
  var track = live(place.track), why = refusal(track);
  if (why) return { problem: why };
  var slot = freeSlot(track, place.slot);
  if (!slot) {
    attempt(function () {
      live("live_set").call("create_scene", -1);
    });
    slot = freeSlot(track, place.slot);
  }
  if (!slot) return { problem: "its track has no free slot" };
  attempt(function () {
    live(slot).call("create_audio_clip", stem);
  });
  return outcome(track, clips.firstId(live(slot), "clip"), "slot " + (ids(track, "clip_slots").indexOf(slot) + 1));
}

/** The next empty slot below one, or from the top where that one is gone. */
function freeSlot(track, below) {
  var slots = ids(track, "clip_slots");
  return slots.slice(slots.indexOf(below) + 1).filter(function (slot) {
    return !number(live(slot), "has_clip");
  })[0] || 0;
}

/** At the original's time on a track of ours below its own, since its own has the original there. */
function intoArrangement(stem, place) {
  var id = ownTrack(place), track = live(id);
  if (!id) return { problem: "Live adds no more tracks" };
  var before = ids(track, "arrangement_clips");
  attempt(function () {
    track.call("create_audio_clip", stem, place.start_time);
  });
  return outcome(track, added(before, ids(track, "arrangement_clips")), "track " + text(track, "name"));
}

/** The first of our tracks right below the original's that is free from there on, or a new one; 0 for none. */
function ownTrack(place) {
  var set = live("live_set"), tracks = ids(set, "tracks");
  var name = "Stylus \u2190 " + text(live(place.track), "name");
  var index = tracks.indexOf(place.track) + 1;
  for (; index < tracks.length && text(live(tracks[index]), "name") === name; index++) {
    if (isFree(live(tracks[index]), place.start_time)) return tracks[index];
  }
  attempt(function () {
    set.call("create_audio_track", index);
  });
  var made = added(tracks, ids(set, "tracks"));
  if (made) live(made).set("name", name);
  return made;
}

function added(before, after) {
  return after.filter(function (id) {
    return before.indexOf(id) < 0;
  })[0] || 0;
}

/** Whether nothing lies from a time on: how long Live makes a new clip is not known before it is there. */
function isFree(track, time) {
  return !refusal(track) && clips.arranged(track).every(function (clip) {
    return number(live(clip), "end_time") <= time + TINY;
  });
}

/** Gives a stem's clip what `copy` said; may be called again. */
function dress(id, wanted) {
  var clip = live(id);
  if (wanted.warping) {
    clip.set("warp_mode", wanted.warp_mode);
    warp(clip, wanted.warp_markers);
  }
  clip.set("looping", wanted.looping);
  span(clip, "start_marker", "end_marker", wanted);
  if (wanted.looping) span(clip, "loop_start", "loop_end", wanted);
  clips.COPIED.forEach(function (property) {
    clip.set(property, wanted[property]);
  });
}

/** Sets both ends, in the order in which the first never comes behind the second. */
function span(clip, first, last, wanted) {
  var order = wanted[first] < number(clip, last) ? [first, last] : [last, first];
  order.forEach(function (property) {
    clip.set(property, wanted[property]);
  });
}

/** Makes auto-warp's markers ours: what cannot be removed is moved onto our line, where it does no harm. */
function warp(clip, wanted) {
  clips.markers(clip).slice(1, -1).reverse().forEach(function (marker) {
    attempt(function () {
      clip.call("remove_warp_marker", marker.beat_time);
    });
  });
  // Twice, since a marker cannot be moved past one that is still to be moved.
  for (var turn = 0; turn < 2; turn++) straighten(clip, wanted);
  var there = clips.markers(clip).slice(0, -1);
  wanted.forEach(function (marker) {
    var known = there.some(function (other) {
      return Math.abs(other.sample_time - marker.sample_time) < TINY;
    });
    if (!known) add(clip, marker);
  });
}

function straighten(clip, wanted) {
  clips.markers(clip).slice(0, -1).reverse().forEach(function (marker) {
    var off = clips.through(wanted, "sample_time", "beat_time", marker.sample_time) - marker.beat_time;
    if (Math.abs(off) < TINY) return;
    attempt(function () {
      clip.call("move_warp_marker", marker.beat_time, off);
    });
  });
}

function add(clip, marker) {
  // What `js` hands to Live as a dictionary.
  var dict = new Dict();
  dict.set("beat_time", marker.beat_time);
  dict.set("sample_time", marker.sample_time);
  attempt(function () {
    clip.call("add_warp_marker", dict);
  });
}

/** Whether a stem's clip is warped as its original. */
function fits(id, wanted) {
  var clip = live(id);
  if (number(clip, "warping") !== wanted.warping) return false;
  if (!wanted.warping) return true;
  var list = clips.markers(clip);
  return wanted.warp_markers.every(function (marker) {
    var there = clips.through(list, "beat_time", "sample_time", marker.beat_time);
    return Math.abs(there - marker.sample_time) < clips.AUDIBLE;
  });
}

exports.put = put;
exports.dress = dress;
exports.fits = fits;
