// What the device's buttons do: asks the daemon for renders, and has their stems put into Live.
//
// For Max's `js`: ES5. What it hears and says stands in README.md beside it; each message is a function here.

autowatch = 0;
inlets = 1;
outlets = 2;

var clips = require("stylus_clip");
var stems = require("stylus_stem");
var queues = require("stylus_queue");
var requests = require("stylus_request");
var lists = require("stylus_menus");

/** When Live has turned a new clip's warping over, and when it has analysed the clip, ms. */
var TURNED = 100, ANALYSED = 2000;

var dials = JSON.parse(JSON.stringify(requests.INITIAL));
var menus = new lists.Menus(ask, say);
/** `{style, name}`: what the daemon is told, and how it is called. */
var reference = null;
var dropped = "";
var takes = [], listed = [];
/** What the Set keeps of us. */
var stored = "";
/** The file that Show File shows. */
var stem = "";
var queue = new queues.Queue();
var tasks = [];
var ready = false, connected = false;
var absence = "looking for the Stylus daemon";
var observer = null, observed = 0;

// From Live and the Set

/** Live's objects can be used from here on. */
function loaded() {
  ready = true;
  // Live says so again with every preset that is loaded and every time that the device is saved.
  if (observer) observer.property = "";
  observer = new LiveAPI(selectionChanged, "live_set view");
  observer.property = "detail_clip";
  showReference();
  refresh();
}

function freed() {
  if (observer) observer.property = "";
  tasks.forEach(function (task) {
    task.cancel();
  });
}

/** Live allows no changes, and little else, while it tells of its own. */
function selectionChanged() {
  later(0, function () {
    var now = clips.selected();
    // A dropped file is what is meant until another clip is.
    if (now !== observed) dropped = "";
    observed = now;
    refresh();
  });
}

function restore(json) {
  // The patch says back what it is given to keep.
  if (json === stored) return;
  var kept;
  try {
    kept = JSON.parse(json);
  } catch (damaged) {
    return;
  }
  if (!kept || !Array.isArray(kept.takes)) return;
  // Live's Undo and Redo restore what was kept before.
  stored = json;
  reference = kept.reference || null;
  takes = kept.takes;
  menus.choose("preset", kept.preset || "");
  menus.choose("model", kept.model || "");
  showReference();
  refresh();
}

function store() {
  stored = JSON.stringify({
    reference: reference, preset: menus.chosen.preset, model: menus.chosen.model, takes: takes
  });
  say("keep_state", stored);
}

// From the controls

function content_dropped() {
  dropped = clips.toPath(arrayfromargs(arguments).join(" "));
  observed = ready ? clips.selected() : 0;
  refresh();
}

function style_dropped() {
  var path = clips.toPath(arrayfromargs(arguments).join(" "));
  refer({ style: path, name: requests.stemName(path) });
}

function style_from_clip() {
  var id = ready ? clips.selected() : 0;
  var clip = id ? clips.read(id) : { problem: "select a clip to take its sound" };
  if (clip.problem) status(clip.problem);
  else refer({ style: clip.file, name: requests.stemName(clip.file) });
}

function style(item) {
  var name = menus.name("style", item);
  if (name) refer({ style: name, name: name });
  else if (name === "" && reference && isInLibrary(reference)) refer(null);
}

function preset(item) {
  pick("preset", item);
}

function model(item) {
  pick("model", item);
}

function pick(menu, item) {
  var name = menus.name(menu, item);
  if (name === undefined) return;
  menus.chosen[menu] = name;
  store();
}

function keep(value) {
  dials.keep = rounded(value);
}

function amount(value) {
  dials.amount = rounded(value);
}

function mix(percent) {
  dials.mix = rounded(percent);
}

function reconstruction(item) {
  dials.reconstruction = item;
}

function render() {
  begin([content()], false);
}

function preview() {
  begin([content()], true);
}

function render_all() {
  var track = ready ? clips.deviceTrack() : 0;
  // What was made before would be restyled once more.
  var found = track ? clips.clipsOf(track).map(clips.read).filter(isNoStem) : [];
  begin(found.length ? found : [{ problem: "there is no audio clip to render on this track" }], false);
}

function isNoStem(info) {
  return info.problem || !takes.some(function (take) {
    return take.stem === info.file;
  });
}

function cancel() {
  queue.records.forEach(function (record) {
    record.cancelled = true;
    if (record.job) inquire(record);
  });
  tell();
}

function start_daemon() {
  outlet(0, "start");
}

function show_file() {
  if (stem) outlet(0, "reveal", stem);
  else status("nothing has been rendered yet");
}

/** Has the page opened in the device's window, with what would be rendered. */
function page() {
  askForPage("window");
}

/** The same in the browser. */
function browse() {
  askForPage("browser");
}

function askForPage(where) {
  if (!connected) status(absence);
  else ask("page:" + where, "/stylus/page", []);
}

function take(item) {
  var chosenTake = listed[item - 1];
  if (!chosenTake) return;
  stem = chosenTake.stem;
  var found = ready && clips.show(stem);
  status(requests.baseName(stem) + (found ? " is selected" : " is in no clip; Show File shows it"));
}

function anything() {
  post("Stylus: " + messagename + " is no word of this device\n");
}

// From the daemon

function node(word, first, second) {
  if (word === "connected") arrived(JSON.parse(first));
  else if (word === "disconnected") left(JSON.parse(first));
  else if (word === "reply") answered(first, JSON.parse(second));
  else if (word === "event") happened(JSON.parse(first));
}

function arrived(about) {
  connected = true;
  say("offline", 0);
  status("Stylus " + about.version + " is ready");
  menus.fetch();
  // What happened meanwhile has not been heard.
  queue.records.forEach(function (record) {
    if (record.job) inquire(record);
  });
}

function left(about) {
  connected = false;
  absence = about.reason;
  say("offline", about.canStart ? 1 : 0);
  status(absence);
}

function answered(key, answer) {
  var words = key.split(":"), record = queue.find("number", Number(words[1]));
  if (words[0] === "page") {
    showPage(words[1], answer);
    return;
  }
  if (menus.take(key, answer) || !record) return;
  if (words[0] === "render") taken(record, answer);
  else if (words[0] === "status") resolved(record, answer);
  else if (words[0] === "cancel") ended(record, answer);
}

/** Opens the page where it was asked for; a daemon may have none. */
function showPage(where, answer) {
  var url = answer.ok ? answer.arguments[0] : "";
  if (!url) {
    status(answer.ok ? "this daemon serves no page: it was started without" : answer.message);
    return;
  }
  var info = content(), what = info.problem ? info : requests.passage(info, false);
  if (!what.problem) url += "#" + requests.fragment(info, what);
  if (where === "window") say("page", url);
  else messnamed("max", "launchbrowser", url);
}

function taken(record, answer) {
  if (answer.ok) {
    record.job = answer.arguments[0];
    record.note = answer.arguments[1] || "";
    if (record.cancelled) inquire(record);
    tell();
  } else if (/^output: the folder/.test(answer.message) && record.outputs.length) {
    record.outputs.shift();
    send(record);
  } else failed(record, answer.code, answer.message);
}

/** Asks how a job is, or for its end where that is wished for. */
function inquire(record) {
  if (record.cancelled) ask("cancel:" + record.number, "/stylus/job/cancel", [record.job]);
  else ask("status:" + record.number, "/stylus/job/status", [record.job]);
}

/** A job's state as it was asked for. */
function resolved(record, answer) {
  if (!answer.ok) {
    if (answer.code !== "no-daemon") failed(record, answer.code, answer.message);
    return;
  }
  var state = answer.arguments[1], said = answer.arguments[4];
  if (state === "done") finished(record, said);
  else if (state === "failed") failed(record, said.split(": ")[0], said.replace(/^[^:]*: /, ""));
  else changed(record, state);
}

/** What came of a wish to cancel: it may have been too late. */
function ended(record, answer) {
  if (!answer.ok) resolved(record, answer);
  else if (answer.arguments[1] === "cancelled") changed(record, "cancelled");
  else if (answer.arguments[1] !== "running") ask("status:" + record.number, "/stylus/job/status", [record.job]);
}

function happened(event) {
  var words = event.arguments, record = queue.find("job", words[0]);
  if (!record) return;
  if (event.address === "/stylus/job/state") changed(record, words[1]);
  else if (event.address === "/stylus/job/progress") progressed(record, words[1], words[2], words[3]);
  else if (event.address === "/stylus/job/result") finished(record, words[2]);
  else if (event.address === "/stylus/job/error") failed(record, words[1], words[2]);
}

/** `done` and `failed` are told again with what came of them. */
function changed(record, state) {
  record.running = state === "running";
  if (state === "cancelled") conclude(record, "cancelled", true);
  else if (state === "queued" || state === "paused") record.stage = state;
  tell();
}

function progressed(record, fraction, stage, seconds) {
  record.running = true;
  record.fraction = fraction;
  record.stage = stage;
  record.left = seconds;
  tell();
}

function failed(record, code, message) {
  var command = code === "not-allowed" && /`(stylus root add [^`]*)`/.exec(message);
  conclude(record, command ? "not allowed: run " + command[1] + " in a terminal, then render" : message, true);
}

function finished(record, path) {
  stem = path;
  record.take.stem = path;
  record.take.at = new Date().getTime();
  takes = queues.withTake(takes, record.take);
  store();
  var said = record.places.map(function (place) {
    // Whoever cancelled does not want it in the Set.
    return record.cancelled ? { problem: requests.baseName(path) + " was ready before" } : placed(path, place);
  });
  var words = said.map(function (one) {
    return one.problem || one.done;
  });
  if (record.note) words.push(record.note);
  if (requests.isTemporary(path)) {
    words.push("the Set is not saved, so it lies in " + requests.folderName(path) + ": save the Set and collect it");
  }
  conclude(record, words.join("; "), said.some(function (one) { return one.problem; }));
  refresh();
}

/** Ends a render; its words stay where no other one is under way. */
function conclude(record, words, isProblem) {
  var summary = queue.end(record, words, isProblem);
  tell();
  if (summary) status(summary);
}

/** Puts a stem where it belongs: `{done}` or `{problem}`, in words. */
function placed(path, place) {
  var made = stems.put(path, place, place.title, place.warping);
  if (made.problem) {
    return { problem: requests.baseName(path) + " is not in the Set: " + made.problem + "; Show File to drag it in" };
  }
  if (place.copy) settle(made.clip, place);
  return { done: place.title + " is in " + made.where };
}

function settle(clip, place) {
  later(TURNED, function () {
    if (clips.exists(clip)) stems.dress(clip, place.copy);
  });
  later(ANALYSED, function () {
    if (!clips.exists(clip) || stems.fits(clip, place.copy)) return;
    stems.dress(clip, place.copy);
    if (!stems.fits(clip, place.copy)) status(place.title + ": check the warp markers");
  });
}

// Asking for renders

/** The dropped file, or the selected clip; `{problem}` where there is neither. */
function content() {
  if (!ready) return { problem: "Live is still loading the device" };
  if (dropped) return { file: dropped, name: requests.stemName(dropped), track: clips.deviceTrack(), whole: true };
  var id = clips.selected();
  return id ? clips.read(id) : { problem: "select a clip, or drop a file" };
}

/** Renders what can be; says why where nothing can. */
function begin(infos, isPreview) {
  if (!connected) return status(absence);
  if (!reference) return status("no reference: drop a file, or choose a style");
  var problems = infos.map(function (info) {
    return info.problem || submit(info, isPreview);
  }).filter(Boolean);
  if (problems.length === infos.length) status(problems[0]);
  else tell();
}

/** Asks for a render, or joins the same one that is under way; why not, or "". */
function submit(info, isPreview) {
  var what = requests.passage(info, isPreview);
  if (what.problem) return what.problem;
  var options = requests.options(dials, menus.chosen).concat(what.options);
  var request = [info.file, reference.style].concat(options), key = JSON.stringify(request);
  // One that is being cancelled brings no stem.
  var known = queue.records.filter(function (record) {
    return record.key === key && !record.cancelled;
  })[0];
  if (known && known.places.some(function (place) { return place.id === what.place.id; })) {
    return info.name + " is being rendered already";
  }
  var called = reference.name + (isPreview ? ", preview" : "");
  what.place.title = info.name + " (" + called + ")";
  if (known) known.places.push(what.place);
  else {
    send(queue.add({
      key: key, request: request, outputs: requests.outputs(info.file, reference.name), places: [what.place],
      take: { file: what.file, start: what.start, end: what.end, style: called }
    }));
  }
  return "";
}

function send(record) {
  var output = record.outputs.length ? ["output", record.outputs[0]] : [];
  ask("render:" + record.number, "/stylus/render", record.request.concat(output));
}

function ask(key, address, words) {
  outlet(0, "request", key, JSON.stringify({ address: address, arguments: words }));
}

// Showing

function say() {
  outlet(1, arrayfromargs(arguments));
}

function status(words) {
  say("status", words);
}

/** How the renders are. */
function tell() {
  var now = queue.current();
  say("busy", now ? 1 : 0);
  say("progress", now ? now.fraction : 0);
  if (now) status(queue.words());
}

function refer(to) {
  reference = to;
  showReference();
  store();
}

function showReference() {
  var isListed = reference && isInLibrary(reference);
  say("reference", !reference ? "no reference yet" : isListed ? reference.name : requests.baseName(reference.style));
  menus.choose("style", isListed ? reference.style : "");
}

function isInLibrary(one) {
  return !/[\/\\]/.test(one.style);
}

/** Says what would be rendered, and lists its earlier renders. */
function refresh() {
  if (!ready) return;
  var info = content(), what = info.problem ? info : requests.passage(info, false);
  if (what.problem) say("content", what.problem);
  else if (info.whole) say("content", requests.baseName(info.file) + ", dropped");
  else say("content", info.name + ", " + ((what.end - what.start) / info.sample_rate).toFixed(1) + " s");
  listed = what.problem ? [] : queues.takesOf(takes, what);
  lists.list(say, "takes", [lists.NONE].concat(listed.map(queues.label)));
  var here = listed.filter(function (one) {
    return one.stem === what.file;
  })[0];
  say("takes", "set", listed.indexOf(here) + 1);
}

function later(time, action) {
  var task = new Task(function () {
    tasks.splice(tasks.indexOf(task), 1);
    action();
  });
  tasks.push(task);
  task.schedule(time);
}

/** Dials are 32-bit floats: 0.9 comes as 0.89999998. */
function rounded(value) {
  return Math.round(value * 1000) / 1000;
}

// What Max is not to call by messages.
[selectionChanged, store, pick, askForPage, arrived, left, answered, showPage, taken, inquire, resolved, ended, happened, changed, progressed,
  failed, finished, conclude, placed, settle, content, begin, submit, send, ask, say, status, tell, refer, showReference,
  isInLibrary, refresh, later, rounded
].forEach(function (inner) {
  inner.local = 1;
});
