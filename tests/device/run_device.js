// Runs the device's scripts as Max's `js` would, on a model of Live, told what to do by lines of JSON.
//
// {"open": Set} makes a device, of which the number comes back. Any other line says what happens to which device, as
// {"device": 0, "send": [word, …]}, or "advance": ms, "live": [what, …], "dump": true; back comes what its outlets said.

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const vm = require("node:vm");
const { Live, liveApi } = require("./live_model.js");

const FOLDER = path.join(__dirname, "..", "..", "max_for_live");

/** What the language of Max's `js` has; whatever is newer is taken away. */
const ES5 = {
  "Array.prototype": "constructor length toString toLocaleString concat join pop push reverse shift slice sort splice "
    + "unshift indexOf lastIndexOf every some forEach map filter reduce reduceRight",
  "String.prototype": "constructor length toString valueOf charAt charCodeAt concat indexOf lastIndexOf localeCompare "
    + "match replace search slice split substring substr toLowerCase toLocaleLowerCase toUpperCase toLocaleUpperCase "
    + "trim",
  Array: "length name prototype isArray",
  Object: "length name prototype getPrototypeOf getOwnPropertyDescriptor getOwnPropertyNames create defineProperty "
    + "defineProperties seal freeze preventExtensions isSealed isFrozen isExtensible keys",
  Number: "length name prototype MAX_VALUE MIN_VALUE NaN NEGATIVE_INFINITY POSITIVE_INFINITY",
  Math: "E LN10 LN2 LOG2E LOG10E PI SQRT1_2 SQRT2 abs acos asin atan atan2 ceil cos exp floor log max min pow random "
    + "round sin sqrt tan",
  globalThis: "Object Function Array String Boolean Number Date RegExp Error EvalError RangeError ReferenceError "
    + "SyntaxError TypeError URIError Math JSON NaN Infinity undefined eval parseInt parseFloat isNaN isFinite "
    + "decodeURI decodeURIComponent encodeURI encodeURIComponent",
};

/** How long Live takes between two looks at its timers, ms. */
const STEP = 50;

function es5() {
  const context = vm.createContext();
  for (const [object, names] of Object.entries(ES5)) {
    const kept = JSON.stringify(names.split(" "));
    vm.runInContext(`(function (object, kept) {
      Object.getOwnPropertyNames(object).forEach(function (name) { if (kept.indexOf(name) < 0) delete object[name]; });
    })(${object}, ${kept})`, context);
  }
  return context;
}

/** A device in a Set: a function of commands. */
function open(spec) {
  const context = es5();
  const parse = vm.runInContext("JSON.parse", context);
  /** A value as the scripts' own: arrays have their methods and no others. */
  const own = (value) => (value === undefined ? undefined : parse(JSON.stringify(value)));
  const live = new Live(spec);
  let out = [];

  class Dict {
    constructor() {
      this.content = {};
    }

    set(key, value) {
      this.content[key] = value;
    }
  }

  class Task {
    constructor(action) {
      this.action = action;
    }

    schedule(delay) {
      live.at(delay, () => {
        if (!this.isCancelled) dispatch(this.action, []);
      });
    }

    cancel() {
      this.isCancelled = true;
    }
  }

  function outlet(number, ...words) {
    const atoms = words.flatMap((word) => (Array.isArray(word) ? [...word] : [word]));
    for (const atom of atoms) {
      if (typeof atom !== "string" && !Number.isFinite(atom)) throw new Error(`${atom} cannot leave an outlet`);
    }
    out.push([number, ...atoms]);
    // The patch's pattr.
    if (atoms[0] === "keep_state") context.restore(atoms[1]);
  }

  /** A message to an object by its name; Max itself is `max`. */
  function messnamed(name, ...words) {
    out.push([name, ...words]);
  }

  /** What a module has too. */
  const shared = { LiveAPI: liveApi(live, own), Dict, Task, post: () => {}, require: load };
  const loaded = {};

  function load(name) {
    if (!loaded[name]) {
      loaded[name] = own({});
      const source = fs.readFileSync(path.join(FOLDER, `${name}.js`), "utf8");
      const names = Object.keys(shared);
      const options = { parsingContext: context, filename: `${name}.js` };
      const body = vm.compileFunction(source, ["exports", ...names], options);
      body(loaded[name], ...names.map((one) => shared[one]));
    }
    return loaded[name];
  }

  function dispatch(action, words) {
    action(...words);
    live.turn();
  }

  function send(word, ...words) {
    if (word === "loaded") live.ready = true;
    const handler = context[word];
    const isHandler = typeof handler === "function" && !handler.local && !(word in shared) && word !== "outlet";
    context.messagename = word;
    dispatch(isHandler ? handler : context.anything, words);
  }

  const changes = {
    select(name) {
      live.song.view.shown = name === null ? null : live.clip(name);
    },
    highlight(track, slot) {
      live.song.view.highlighted = live.song.tracks[track].slots[slot];
    },
    file(file, rate, length) {
      live.files.set(file, { rate, length });
    },
    set(track, name, value) {
      live.song.tracks[track].values[name] = value;
    },
    song(name, value) {
      live.song.values[name] = value;
    },
    remove(name) {
      const clip = live.clip(name);
      if (clip.parent.type === "ClipSlot") clip.parent.clip = null;
      else clip.parent.arrangement.splice(clip.parent.arrangement.indexOf(clip), 1);
      live.remove(clip);
    },
  };

  function perform(command) {
    if (command.send) send(...command.send);
    for (let time = 0; time < (command.advance || 0); time += STEP) live.advance(STEP);
    if (command.live) {
      changes[command.live[0]](...command.live.slice(1));
      live.turn();
    }
  }

  Object.assign(context, shared, {
    outlet, messnamed, jsarguments: own(["stylus_device.js"]), arrayfromargs: (words) => own([...words]), max: {}, messagename: "",
  });
  vm.runInContext(fs.readFileSync(path.join(FOLDER, "stylus_device.js"), "utf8"), context, "stylus_device.js");

  return (command) => {
    out = [];
    let error = null;
    try {
      perform(command);
    } catch (thrown) {
      error = String(thrown.stack || thrown);
    }
    const { complaints, overwritten } = live;
    return { out, error, complaints, overwritten, tracks: command.dump ? live.dump() : null };
  };
}

const devices = [];
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  const said = command.open ? devices.push(open(command.open)) - 1 : devices[command.device](command);
  process.stdout.write(`${JSON.stringify(said)}\n`);
});
