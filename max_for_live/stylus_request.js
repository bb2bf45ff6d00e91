// What of a clip is rendered, by which options, and where its stem goes.
//
// For Max's `js`, by require("stylus_request"): ES5, and nothing of Live before `loaded`.

var clips = require("stylus_clip");

/** The dials as the device has them at first. */
var INITIAL = { keep: 0, amount: 1, mix: 100, reconstruction: 0 };
var RECONSTRUCTIONS = ["gain", "phase", "griffin-lim"];

/** How much a preview renders, seconds. */
var PREVIEW = 6;

/** Folders of a project in which Live itself puts files. */
var FOLDERS = ["Samples/Processed", "Samples/Imported"];

/** The controls as options; a dial that was not moved leaves its value to the preset, or to the model. */
function options(dials, chosen) {
  var values = {
    keep: dials.keep, amount: dials.amount, mix: dials.mix / 100, reconstruction: RECONSTRUCTIONS[dials.reconstruction]
  };
  var words = [];
  Object.keys(values).forEach(function (name) {
    if (dials[name] !== INITIAL[name]) words.push(name, values[name]);
  });
  if (chosen.preset) words.push("preset", chosen.preset);
  if (chosen.model) words.push("model", chosen.model);
  return words;
}

/**
 * A render of what `clips.read` gave, or of a whole `{file, name, track, whole}`: `{file, start, end}` of what is
 * heard, `options` that say so to the daemon, `place` for the stem. `{problem}` where nothing is heard.
 */
function passage(info, isPreview) {
  if (info.whole) {
    return { file: info.file, start: 0, end: 0, options: isPreview ? loudest() : [], place: { track: info.track } };
  }
  var heard = clips.segment(info);
  if (heard.start >= heard.end) return { problem: info.name + " plays nothing of its file" };
  var short = isPreview ? shortened(info, heard) : exactly(info, heard);
  short.place.id = info.id;
  short.place.track = info.track;
  short.place.slot = info.slot;
  return { file: info.file, start: heard.start, end: heard.end, options: short.options, place: short.place };
}

function loudest() {
  return ["preview", PREVIEW];
}

/** The daemon looks for the loudest passage of a whole file; of a part of it we take the beginning. */
function shortened(info, heard) {
  if (heard.start === 0 && heard.end === info.sample_length) return { options: loudest(), place: { warping: 0 } };
  var end = Math.round(heard.start + PREVIEW * info.sample_rate);
  if (heard.end <= end) return exactly(info, heard);
  return exactly(clips.part(info, heard.start, end), { start: heard.start, end: end });
}

function exactly(info, heard) {
  var words = ["start", heard.start + " samples", "end", heard.end + " samples"];
  return {
    options: heard.loops ? words.concat("loop", "on") : words,
    place: {
      arranged: info.arranged, start_time: info.start_time, warping: info.warping,
      copy: clips.copy(info, heard.start, heard.end)
    }
  };
}

/** What the page is told of a passage, behind its address: the file, and what of it is heard. */
function fragment(info, what) {
  var words = ["clip=" + encodeURIComponent(what.file)];
  if (!info.whole) {
    words.push("start=" + what.start / info.sample_rate, "length=" + (what.end - what.start) / info.sample_rate);
  }
  return words.join("&");
}

/** Where a saved Set may have its stem; none for content that lies in its project, beside which the stem is. */
function outputs(file, style) {
  var project = slashed(clips.setPath()).replace(/\/[^\/]*$/, "");
  if (!project || slashed(file).indexOf(project + "/") === 0) return [];
  var name = (stemName(file) + "_" + style).replace(/[\/\\:*?"<>|]/g, "_") + ".wav";
  return FOLDERS.map(function (folder) {
    return project + "/" + folder + "/" + name;
  });
}

/** Whether a file lies in the project that Live keeps for a Set which was never saved. */
function isTemporary(file) {
  return /\/(Temporary|[^\/]*Temp) Project\//.test(slashed(file));
}

function slashed(path) {
  return path.replace(/\\/g, "/");
}

function baseName(path) {
  return slashed(path).replace(/^.*\//, "");
}

/** A file's name without its ending. */
function stemName(path) {
  return baseName(path).replace(/\.[^.]*$/, "");
}

function folderName(path) {
  return path.replace(/[\/\\][^\/\\]*$/, "");
}

exports.INITIAL = INITIAL;
exports.options = options;
exports.passage = passage;
exports.fragment = fragment;
exports.outputs = outputs;
exports.isTemporary = isTemporary;
exports.baseName = baseName;
exports.stemName = stemName;
exports.folderName = folderName;
