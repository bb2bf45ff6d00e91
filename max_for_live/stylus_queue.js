// The renders under way and the earlier ones, in words: nothing of Live, and nothing of the daemon.
//
// For Max's `js`, by require("stylus_queue"): ES5.

/** Earlier renders that a Set keeps. */
var KEPT = 64;

/** Renders of which the end has not come, in the order in which they were asked for. */
function Queue() {
  this.records = [];
  this.count = 0;
  this.forget();
}

Queue.prototype.forget = function () {
  this.ended = 0;
  this.problems = [];
};

/** Takes a render in; `record` says what was asked for, and where its stem is to go. */
Queue.prototype.add = function (record) {
  record.number = ++this.count;
  record.job = 0;
  record.stage = "waiting";
  record.fraction = 0;
  record.left = -1;
  record.running = false;
  record.cancelled = false;
  this.records.push(record);
  return record;
};

/** The first render of which a property has a value; undefined for none. */
Queue.prototype.find = function (property, value) {
  return this.records.filter(function (record) {
    return record[property] === value;
  })[0];
};

/** Takes a render out. Behind the last, in words, what came of all: its own words where it was alone, else "". */
Queue.prototype.end = function (record, words, isProblem) {
  this.records.splice(this.records.indexOf(record), 1);
  this.ended++;
  if (isProblem) this.problems.push(words);
  if (this.records.length) return "";
  var all = this.ended, problems = this.problems;
  this.forget();
  if (all === 1) return words;
  var last = problems.length ? "; " + problems[problems.length - 1] : "";
  return (all - problems.length) + " of " + all + " done" + last;
};

/** The one that is shown: the running one, or the next. */
Queue.prototype.current = function () {
  return this.find("running", true) || this.records[0];
};

/** Where we are: "2 of 5: inverting, 40 s left". */
Queue.prototype.words = function () {
  var now = this.current(), all = this.ended + this.records.length;
  var place = all > 1 ? (this.ended + 1) + " of " + all + ": " : "";
  return place + (now.cancelled ? "cancelling" : now.stage) + (now.left > 0 ? ", " + remaining(now.left) : "");
};

function remaining(seconds) {
  return seconds < 100 ? Math.ceil(seconds) + " s left" : Math.round(seconds / 60) + " min left";
}

/** The takes with a new one before them, and no more than are kept. */
function withTake(takes, take) {
  return [take].concat(takes).slice(0, KEPT);
}

/** Earlier renders of a passage `{file, start, end}`; those of a stem are its original's. */
function takesOf(takes, passage) {
  var own = takes.filter(function (take) {
    return take.stem === passage.file;
  })[0];
  var from = own || passage;
  return takes.filter(function (take) {
    return take.file === from.file && take.start === from.start && take.end === from.end;
  });
}

/** How a take is called in its menu: "bells 14:32". */
function label(take) {
  var time = new Date(take.at);
  return take.style + " " + time.getHours() + ":" + ("0" + time.getMinutes()).slice(-2);
}

exports.Queue = Queue;
exports.withTake = withTake;
exports.takesOf = takesOf;
exports.label = label;
