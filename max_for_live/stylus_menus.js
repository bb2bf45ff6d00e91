// The menus whose items the daemon knows: styles, presets and models, by name wherever they stand.
//
// For Max's `js`, by require("stylus_menus"): ES5.

/** The first item of a menu from which nothing need be chosen. */
var NONE = "\u2013";

/** What each is asked for by, and how many words a name takes in an answer that comes in pages. */
var LISTS = {
  style: { address: "/stylus/style/list", width: 2 },
  preset: { address: "/stylus/presets", width: 1 },
  model: { address: "/stylus/models", width: 0 }
};

/** `ask(key, address, arguments)` reaches the daemon; `say(word, value)` the patch. */
function Menus(ask, say) {
  this.ask = ask;
  this.say = say;
  this.names = { style: [], preset: [], model: [] };
  this.chosen = { style: "", preset: "", model: "" };
  /** The daemon's own model, where it is none of the known ones. */
  this.own = "";
  /** The items that the patch has been given. */
  this.listed = {};
}

/** Asks the daemon for all of them. */
Menus.prototype.fetch = function () {
  for (var menu in LISTS) this.fetchFrom(menu, 0);
};

Menus.prototype.fetchFrom = function (menu, offset) {
  this.ask(menu + ":" + offset, LISTS[menu].address, LISTS[menu].width ? [offset] : []);
};

/** Takes an answer to `fetch`; whether it was one. */
Menus.prototype.take = function (key, answer) {
  var menu = key.split(":")[0];
  if (key === "loaded" && answer.ok) this.showOwn(answer.arguments[0]);
  else if (menu in LISTS && answer.ok) this.page(menu, Number(key.split(":")[1]), answer.arguments);
  return menu in LISTS || key === "loaded";
};

Menus.prototype.page = function (menu, offset, words) {
  var width = LISTS[menu].width, rows = width ? words.slice(2) : words;
  var names = rows.filter(function (word, at) {
    return !width || at % width === 0;
  });
  this.names[menu] = this.names[menu].slice(0, offset).concat(names);
  if (width && names.length && this.names[menu].length < words[0]) this.fetchFrom(menu, this.names[menu].length);
  else this.fill(menu);
};

Menus.prototype.fill = function (menu) {
  this.list(menu);
  // Where no model is chosen, the daemon's own is used.
  if (menu === "model" && !this.chosen.model) this.ask("loaded", "/stylus/model", []);
  else this.show(menu, this.chosen[menu]);
};

/** A name that is chosen is among them, also where the daemon does not know it (yet, or any more): it is what is sent. */
Menus.prototype.items = function (menu) {
  var names = this.names[menu], others = menu === "style" ? [] : [this.chosen[menu]];
  if (menu === "model") others.push(this.own);
  others = others.filter(function (name, at) {
    return name && names.indexOf(name) < 0 && others.indexOf(name) === at;
  });
  return (menu === "model" ? [] : [NONE]).concat(names, others);
};

Menus.prototype.list = function (menu) {
  var items = this.items(menu);
  this.listed[menu] = items.join("\n");
  list(this.say, menu + "s", items);
};

/** Where none is chosen, the daemon's own model is shown: one of a folder or a file by its name. */
Menus.prototype.showOwn = function (model) {
  var isKnown = this.names.model.indexOf(model) >= 0;
  this.own = isKnown ? "" : model.replace(/.*[\/\\]/, "");
  this.show("model", isKnown ? model : this.own);
};

/** The name of an item, "" for that of none; undefined where there is no such item (yet). */
Menus.prototype.name = function (menu, item) {
  var name = this.items(menu)[item];
  return name === NONE || (menu === "model" && name === this.own) ? "" : name;
};

/** Remembers what is chosen, and shows it. */
Menus.prototype.choose = function (menu, name) {
  this.chosen[menu] = name;
  this.show(menu, name);
};

Menus.prototype.show = function (menu, name) {
  if (this.items(menu).join("\n") !== this.listed[menu]) this.list(menu);
  this.say(menu + "s", "set", Math.max(0, this.items(menu).indexOf(name)));
};

/** Gives a menu of the patch its items. */
function list(say, word, items) {
  say(word, "clear");
  items.forEach(function (item) {
    say(word, "append", item);
  });
}

exports.NONE = NONE;
exports.Menus = Menus;
exports.list = list;
