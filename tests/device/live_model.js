// A model of the Live objects that the device's scripts use, with Live's rules as far as they matter to it: what is
// read-only, which end of a clip may lie where, what warp markers allow, who takes audio clips, and that a clip in the
// arrangement overwrites what it is put onto. By the Live Object Model's reference; never compared with Live itself.

"use strict";

const SHADOW = 1 / 32;
const SLOWEST = 5;
const FASTEST = 999;
const NEAR = 1e-6;

class Refused extends Error {}

function refuse(why) {
  throw new Refused(why);
}

/** A Set, Live around it, and the files that there are. */
class Live {
  constructor(spec) {
    this.spec = spec;
    this.version = spec.version || [12, 1, 0];
    this.files = new Map(Object.entries(spec.files || {}));
    this.objects = new Map();
    this.observers = [];
    this.deferred = [];
    this.timers = [];
    this.complaints = [];
    this.overwritten = [];
    this.now = 0;
    this.ready = false;
    this.notifying = false;
    this.app = this.add(new App(this));
    this.song = this.add(new Song(this, spec));
    this.device = this.add(new Device(this, spec));
  }

  isAtLeast(...version) {
    const order = (numbers) => numbers.reduce((sum, part) => sum * 1000 + part, 0);
    return order(this.version) >= order(version);
  }

  add(object) {
    object.id = this.objects.size + 1;
    this.objects.set(object.id, object);
    return object;
  }

  remove(object) {
    this.objects.set(object.id, null);
  }

  /** The object at a path of the reference, as "live_set tracks 0 view". */
  find(path) {
    const words = String(path).split(" ");
    if (words[0] === "id") return this.objects.get(Number(words[1])) || null;
    let object = { live_set: this.song, live_app: this.app, this_device: this.device }[words.shift()] || null;
    while (object && words.length) {
      const child = object.child(words.shift());
      object = Array.isArray(child) ? child[Number(words.shift())] : child;
    }
    return object || null;
  }

  clip(name) {
    return [...this.objects.values()].find((one) => one && one.type === "Clip" && one.values.name === name);
  }

  /** What Live does between two messages of ours. */
  turn() {
    for (const change of this.deferred.splice(0)) change();
    for (const observer of this.observers) observer.look();
  }

  at(delay, action) {
    this.timers.push({ time: this.now + delay, action });
  }

  advance(time) {
    this.now += time;
    const due = this.timers.filter((timer) => timer.time <= this.now);
    this.timers = this.timers.filter((timer) => timer.time > this.now);
    for (const timer of due) timer.action();
  }

  dump() {
    return this.song.tracks.map((track) => ({
      name: track.values.name,
      slots: track.slots.map((slot) => slot.clip && slot.clip.dump()),
      arrangement: track.arrangement.map((clip) => clip.dump()),
    }));
  }
}

/** Values by name, of which some may be set, and children. */
class LiveObject {
  constructor(live, type) {
    this.live = live;
    this.type = type;
    this.values = {};
    this.parent = null;
  }

  child(name) {
    if (name === "canonical_parent") return this.parent;
    return undefined;
  }

  get(name) {
    const child = this.child(name);
    if (child !== undefined) return [].concat(child || { id: 0 }).flatMap((one) => ["id", one.id]);
    if (!(name in this.values)) refuse(`${this.type} has no property ${name}`);
    return [this.values[name]];
  }

  set(name) {
    refuse(`${this.type} ${name} cannot be set`);
  }

  call(name) {
    refuse(`${this.type} has no function ${name}`);
  }
}

class App extends LiveObject {
  constructor(live) {
    super(live, "Application");
  }

  call(name) {
    const at = ["get_major_version", "get_minor_version", "get_bugfix_version"].indexOf(name);
    return at < 0 ? super.call(name) : this.live.version[at];
  }
}

class Song extends LiveObject {
  constructor(live, spec) {
    super(live, "Song");
    this.values = { tempo: spec.tempo || 120, record_mode: 0 };
    if (live.isAtLeast(11, 3, 0)) this.values.file_path = spec.set_path || "";
    this.scenes = spec.scenes || 4;
    this.view = live.add(new SongView(live));
    this.tracks = spec.tracks.map((track) => live.add(new Track(live, this, track)));
  }

  child(name) {
    return { tracks: this.tracks, view: this.view }[name];
  }

  call(name, index) {
    if (name === "create_scene") return this.createScene(index);
    if (name === "create_audio_track") return this.createTrack(index);
    return super.call(name);
  }

  createScene(index) {
    if (this.scenes >= (this.live.spec.most_scenes || 1000)) refuse("no more scenes");
    if (index !== -1) refuse("the model adds scenes at the end only");
    this.scenes++;
    for (const track of this.tracks) track.addSlot(null);
  }

  createTrack(index) {
    if (this.tracks.length >= (this.live.spec.most_tracks || 1000)) refuse("no more tracks");
    if (index < 0 || index > this.tracks.length) refuse(`no track can be at ${index}`);
    this.tracks.splice(index, 0, this.live.add(new Track(this.live, this, { name: "Audio", kind: "audio" })));
  }
}

class SongView extends LiveObject {
  constructor(live) {
    super(live, "Song.View");
    this.shown = null;
    this.highlighted = null;
  }

  child(name) {
    if (name === "detail_clip") return this.shown;
    if (name === "highlighted_clip_slot") return this.highlighted;
    return super.child(name);
  }

  set(name, word, id) {
    if (name !== "detail_clip" || word !== "id") return super.set(name);
    this.shown = this.live.objects.get(id) || refuse(`no clip has the id ${id}`);
  }
}

class Device extends LiveObject {
  constructor(live, spec) {
    super(live, "MaxDevice");
    this.parent = live.song.tracks[spec.device_track || 0];
    if (spec.in_rack) {
      const rack = live.add(new LiveObject(live, "RackDevice"));
      const chain = live.add(new LiveObject(live, "Chain"));
      [rack.parent, chain.parent, this.parent] = [this.parent, rack, chain];
    }
  }
}

class Track extends LiveObject {
  constructor(live, song, spec) {
    super(live, "Track");
    this.parent = song;
    this.kind = spec.kind || "audio";
    this.values = {
      name: spec.name, is_frozen: spec.frozen ? 1 : 0, is_foldable: this.kind === "group" ? 1 : 0,
      has_audio_input: this.kind === "midi" ? 0 : 1, can_be_armed: this.kind === "group" ? 0 : 1,
    };
    if (this.values.can_be_armed) this.values.arm = 0;
    this.slots = [];
    for (let i = 0; i < song.scenes; i++) this.addSlot((spec.slots || {})[i]);
    this.arrangement = (spec.arrangement || []).map((clip) => this.live.add(new Clip(live, this, clip)));
  }

  addSlot(clip) {
    const slot = this.live.add(new Slot(this.live, this));
    if (clip) slot.clip = this.live.add(new Clip(this.live, slot, clip));
    this.slots.push(slot);
  }

  child(name) {
    return { clip_slots: this.slots, arrangement_clips: this.arrangement }[name] || super.child(name);
  }

  set(name, value) {
    if (name !== "name") return super.set(name);
    this.values.name = value;
  }

  takesAudio() {
    if (this.kind !== "audio") refuse("not an audio track");
    if (this.values.is_frozen) refuse("the track is frozen");
  }

  call(name, path, time) {
    if (name !== "create_audio_clip" || !this.live.isAtLeast(12, 0, 5)) return super.call(name);
    this.takesAudio();
    if (this.values.arm && this.live.song.values.record_mode) refuse("the track is being recorded into");
    if (!(time >= 0 && time <= 1576800)) refuse(`${time} is no time`);
    const clip = this.live.add(Clip.imported(this.live, this, path, time));
    this.arrangement.push(clip);
    this.clear(clip);
  }

  /** What a clip in the arrangement does to the others there. */
  clear(clip) {
    for (const other of this.arrangement.filter((one) => one !== clip)) {
      if (other.startTime < clip.endTime - NEAR && clip.startTime < other.endTime - NEAR) {
        this.live.overwritten.push(other.values.name);
      }
    }
  }
}

class Slot extends LiveObject {
  constructor(live, track) {
    super(live, "ClipSlot");
    this.parent = track;
    this.clip = null;
  }

  child(name) {
    return name === "clip" ? this.clip : super.child(name);
  }

  get(name) {
    return name === "has_clip" ? [this.clip ? 1 : 0] : super.get(name);
  }

  call(name, path) {
    if (name !== "create_audio_clip" || !this.live.isAtLeast(12, 0, 5)) return super.call(name);
    this.parent.takesAudio();
    if (this.clip) refuse("the slot has a clip");
    this.clip = this.live.add(Clip.imported(this.live, this, path));
  }
}

const AUDIO = {
  warping: 0, warp_mode: 0, gain: 0.4, pitch_coarse: 0, pitch_fine: 0, sample_rate: 44100, sample_length: 44100,
  file_path: "",
};
const FIXED = ["is_audio_clip", "is_recording", "is_arrangement_clip", "file_path", "sample_rate", "sample_length",
  "start_time"];
const LIMITS = { gain: [0, 1], pitch_coarse: [-48, 48], pitch_fine: [-50, 49], warp_mode: [0, 6] };
const ENDS = [["start_marker", "end_marker"], ["loop_start", "loop_end"]];

class Clip extends LiveObject {
  constructor(live, parent, spec) {
    super(live, "Clip");
    this.parent = parent;
    this.values = {
      name: "", color: 0, looping: 0, start_marker: 0, end_marker: 4, loop_start: 0, loop_end: 4, is_audio_clip: 1,
      is_recording: 0, is_arrangement_clip: parent.type === "Track" ? 1 : 0, start_time: 0, ...(spec.midi ? {} : AUDIO),
      ...spec.values,
    };
    if (spec.midi) this.values.is_audio_clip = 0;
    this.markers = toMarkers(spec.markers || [[0, 0], [1, 2]]);
  }

  /** A new clip as auto-warp leaves it: looped somewhere, at a tempo of its own, with markers that nobody asked for. */
  static imported(live, parent, path, time = 0) {
    const file = live.files.get(path) || refuse(`${path} cannot be read`);
    const seconds = file.length / file.rate;
    const guess = [[0.013, 0], [seconds * 0.4, 1], [seconds * 0.8, 2.5], [seconds * 0.8 + 0.02, 2.5 + SHADOW]];
    const clip = new Clip(live, parent, {
      values: {
        name: path, file_path: path, sample_rate: file.rate, sample_length: file.length, warping: 1, looping: 1,
        start_time: time, start_marker: 0.5, end_marker: 3, loop_start: 0.5, loop_end: 3,
      },
      markers: live.spec.late ? [[0, 0], [1, 2]] : guess,
    });
    if (live.spec.late) live.at(1500, () => { clip.markers = toMarkers(guess); });
    return clip;
  }

  get track() {
    return this.parent.type === "Track" ? this.parent : this.parent.parent;
  }

  get startTime() {
    return this.values.start_time;
  }

  get endTime() {
    const { start_marker, end_marker, loop_end, looping, warping } = this.values;
    const length = (looping ? loop_end : end_marker) - start_marker;
    return this.startTime + (warping ? length : (length * this.live.song.values.tempo) / 60);
  }

  get(name) {
    if (name === "end_time") return [this.endTime];
    if (name === "warp_markers" && this.values.is_audio_clip) return [JSON.stringify({ warp_markers: this.markers })];
    if (!this.values.looping && name === "loop_start") return [this.values.start_marker];
    if (!this.values.looping && name === "loop_end") return [this.values.end_marker];
    return super.get(name);
  }

  set(name, value) {
    const values = this.values;
    if (!(name in values) || FIXED.includes(name)) super.set(name);
    if (name in LIMITS && !(value >= LIMITS[name][0] && value <= LIMITS[name][1])) refuse(`${name} cannot be ${value}`);
    if (name !== "name" && !Number.isFinite(value)) refuse(`${name} cannot be ${value}`);
    for (const [first, last] of ENDS) {
      if (name === first && value >= values[last]) refuse(`${first} ${value} is behind ${last} ${values[last]}`);
      if (name === last && value <= values[first]) refuse(`${last} ${value} is before ${first} ${values[first]}`);
    }
    if (name === "looping" && value && !values.warping) refuse("unwarped audio cannot be looped");
    if (name === "warping") this.live.deferred.push(() => this.turnWarping(value));
    else values[name] = value;
    if (values.is_arrangement_clip) this.track.clear(this);
  }

  /** Places are beats of a warped clip, and seconds of another. */
  turnWarping(on) {
    if (on === this.values.warping) return;
    this.values.warping = on;
    const [from, to] = on ? ["sample_time", "beat_time"] : ["beat_time", "sample_time"];
    for (const name of ENDS.flat()) this.values[name] = this.through(from, to, this.values[name]);
  }

  through(from, to, place) {
    const inner = this.markers.slice(1, -1);
    const at = inner.filter((marker) => marker[from] < place).length;
    const [a, b] = this.markers.slice(at, at + 2);
    return a[to] + ((place - a[from]) / (b[from] - a[from])) * (b[to] - a[to]);
  }

  call(name, ...words) {
    if (!name.endsWith("_warp_marker")) return super.call(name);
    if (!this.values.warping) refuse("the clip is not warped");
    if (name === "add_warp_marker") return this.addMarker(words[0].content || refuse("a marker is a dictionary"));
    const visible = this.markers.slice(0, -1);
    const at = visible.findIndex((marker) => Math.abs(marker.beat_time - words[0]) < NEAR);
    if (at < 0) refuse(`there is no warp marker at ${words[0]}`);
    if (name === "remove_warp_marker") return this.removeMarker(at);
    if (name === "move_warp_marker") return this.moveMarker(at, words[1]);
    return super.call(name);
  }

  addMarker({ sample_time, beat_time }) {
    if (!(sample_time >= 0 && sample_time <= this.values.sample_length / this.values.sample_rate)) {
      refuse(`a warp marker at ${sample_time} s is outside of the sample`);
    }
    const visible = this.markers.slice(0, -1);
    const at = visible.filter((marker) => marker.sample_time < sample_time).length;
    if (visible.some((marker) => marker.sample_time === sample_time)) refuse("there is a warp marker already");
    visible.splice(at, 0, { sample_time, beat_time });
    this.checked(visible);
    const isLast = at === visible.length - 1;
    this.markers = [...visible, isLast ? shadow(visible[at - 1], visible[at]) : this.markers[this.markers.length - 1]];
  }

  moveMarker(at, distance) {
    const moved = this.markers.map((marker) => ({ ...marker }));
    moved[at].beat_time += distance;
    if (at === moved.length - 2) moved[at + 1].beat_time += distance;
    this.checked(moved.slice(0, -1));
    this.markers = moved;
  }

  removeMarker(at) {
    if (this.live.spec.stubborn || this.markers.length <= 2) refuse("this warp marker stays");
    this.markers.splice(at, 1);
  }

  checked(visible) {
    visible.slice(1).forEach((marker, i) => {
      const tempo = (60 * (marker.beat_time - visible[i].beat_time)) / (marker.sample_time - visible[i].sample_time);
      if (!(tempo >= SLOWEST && tempo <= FASTEST)) refuse(`a tempo of ${tempo} is out of range`);
    });
  }

  dump() {
    const markers = this.markers.map((marker) => [marker.sample_time, marker.beat_time]);
    return { ...this.values, id: this.id, end_time: this.endTime, markers };
  }
}

function toMarkers(pairs) {
  return pairs.map(([sample_time, beat_time]) => ({ sample_time, beat_time }));
}

/** The hidden marker behind the last one. */
function shadow(before, last) {
  const slope = (last.sample_time - before.sample_time) / (last.beat_time - before.beat_time);
  return { sample_time: last.sample_time + SHADOW * slope, beat_time: last.beat_time + SHADOW };
}

/** `LiveAPI` as scripts have it; `own` makes values theirs. */
function liveApi(live, own) {
  return class LiveAPI {
    constructor(first, second) {
      if (!live.ready) throw new Error("Live API is not initialized, use live.thisdevice");
      const hasCallback = typeof first === "function";
      this.callback = hasCallback ? first : null;
      this.object = live.find(hasCallback ? second : first);
      this.seen = null;
    }

    get id() {
      return String(this.object ? this.object.id : 0);
    }

    get type() {
      return this.object ? this.object.type : "";
    }

    set property(name) {
      live.observers = live.observers.filter((one) => one !== this);
      this.observed = name;
      if (!name) return;
      this.object.get(name);
      live.observers.push(this);
      this.look();
    }

    look() {
      const value = JSON.stringify(this.object.get(this.observed));
      if (value === this.seen) return;
      this.seen = value;
      live.notifying = true;
      this.callback(own([this.observed, ...JSON.parse(value)]));
      live.notifying = false;
    }

    get(name) {
      return own(this.attempt(() => this.object.get(name), [0]));
    }

    set(name, ...values) {
      this.attempt(() => this.change(() => this.object.set(name, ...values)));
    }

    call(name, ...values) {
      return this.attempt(() => this.change(() => this.object.call(name, ...values)), 0);
    }

    change(action) {
      if (live.notifying) throw new Error("Changes cannot be triggered by notifications");
      return action();
    }

    /** Live prints what it refuses, or throws it. */
    attempt(action, otherwise) {
      try {
        if (!this.object) refuse("there is no such object");
        return action();
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        live.complaints.push(error.message);
        if (live.spec.throws) throw new Error(error.message);
        return otherwise;
      }
    }
  };
}

module.exports = { Live, liveApi };
