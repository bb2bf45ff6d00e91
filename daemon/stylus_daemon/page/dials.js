/** The settings: the device's dials, by their names and ranges, and what else is heard on the wall. */

import { make } from "./dom.js";

/** As `max_for_live/controls.json` has them; `setting` is the option's name, `scale` what a dial's 1 is of it. */
export const DIALS = [
  { setting: "keep", name: "Keep", low: 0, high: 1, initial: 0, step: 0.01, scale: 1,
    info: "How much of the clip's own structure is kept (γ). Untouched, the model's own value." },
  { setting: "amount", name: "Amount", low: 0, high: 1.5, initial: 1, step: 0.01, scale: 1,
    info: "How much of the reference's sound is taken (α). 0 is none, over 1 exaggerates." },
  { setting: "mix", name: "Mix", low: 0, high: 100, initial: 100, step: 1, scale: 0.01, unit: " %",
    info: "Dry to wet: how much of the stem is the new sound." },
  { setting: "transients", name: "Attacks", low: 0, high: 1, initial: 0, step: 0.01, scale: 1,
    info: "How much of the clip's own attacks is kept." },
];

/** Empty is none. */
export const BANDS = [
  { setting: "keep_below", name: "Keep below", info: "The band under this frequency stays the clip's own." },
  { setting: "keep_above", name: "Keep above", info: "The band over this frequency stays the clip's own." },
];

export const MENUS = [
  { setting: "preset", name: "Preset", items: [["", "–"]] },
  { setting: "model", name: "Model", items: [["", "the daemon's"]] },
  { setting: "reconstruction", name: "Phase", items: [["", "Gain"], ["phase", "Phase"], ["griffin-lim", "Griffin-Lim"]] },
];

/** Other names that a job may have used; what they stand for may be a line over the steps. */
const SAME = { gamma: "keep", alpha: "amount", tau: "sharpness" };
const LINES = Object.values(SAME);

export class Dials {
  /** Builds them in `place`; `changed` is called after every change. */
  constructor(place, changed) {
    this.changed = changed;
    this.inputs = {};
    this.touched = new Set();
    /** Options that no dial shows, as they were asked for. */
    this.others = {};
    for (const dial of DIALS) place.append(this.dial(dial));
    for (const band of BANDS) place.append(this.band(band));
    for (const menu of MENUS) place.append(this.menu(menu));
    this.said = make("span", { role: "status" });
    const drop = make("button", { type: "button", textContent: "Leave out", "aria-label": "Leave out what has no dial", onclick: () => this.drop() });
    this.line = make("p", { className: "also", hidden: true }, this.said, " ", drop);
    place.append(this.line);
  }

  dial(dial) {
    const output = make("output", { for: `dial-${dial.setting}` });
    const input = make("input", {
      type: "range", id: `dial-${dial.setting}`, min: dial.low, max: dial.high, step: dial.step, value: dial.initial,
      oninput: () => this.touch(dial.setting),
    });
    const reset = make("button", {
      type: "button", textContent: "Reset", "aria-label": `Reset ${dial.name}`, onclick: () => this.set(dial.setting, null),
    });
    const box = make("div", { className: "dial", title: dial.info },
      make("label", { for: input.id }, dial.name, output), input, reset);
    this.inputs[dial.setting] = { input, output, box, dial, reset };
    this.show(dial.setting);
    return box;
  }

  band(band) {
    const input = make("input", {
      type: "number", id: `dial-${band.setting}`, min: 10, max: 100000, step: 1, placeholder: "none",
      oninput: () => this.touch(band.setting),
    });
    this.inputs[band.setting] = { input };
    return make("div", { className: "dial", title: band.info }, make("label", { for: input.id }, `${band.name} (Hz)`), input);
  }

  menu(menu) {
    const input = make("select", { id: `dial-${menu.setting}`, onchange: () => this.touch(menu.setting) });
    this.inputs[menu.setting] = { input };
    this.offer(menu.setting, menu.items);
    return make("div", { className: "dial" }, make("label", { for: input.id }, menu.name), input);
  }

  /** What a menu has, as pairs of value and text. */
  offer(setting, items) {
    const { input } = this.inputs[setting];
    const before = input.value;
    input.replaceChildren(...items.map(([value, text]) => make("option", { value, textContent: text })));
    input.value = items.some(([value]) => value === before) ? before : items[0][0];
  }

  touch(setting) {
    this.touched.add(setting);
    this.show(setting);
    this.forget(setting);
  }

  show(setting) {
    const { input, output, box, dial, reset } = this.inputs[setting];
    if (!dial) return;
    const touched = this.touched.has(setting);
    output.textContent = `${Number(input.value).toFixed(dial.step < 1 ? 2 : 0)}${dial.unit ?? ""}`;
    box.classList.toggle("touched", touched);
    reset.hidden = !touched;
  }

  /** Set one, in the setting's own unit; null leaves it to the model. */
  set(setting, value) {
    const place = this.inputs[setting];
    if (!place) return;
    const none = value === null || value === undefined || value === "";
    if (place.dial) place.input.value = none ? place.dial.initial : value / place.dial.scale;
    else place.input.value = none ? "" : value;
    if (none) this.touched.delete(setting);
    else this.touched.add(setting);
    this.show(setting);
    this.changed();
  }

  /** Set all that there are: what `values` has not goes back to the model's, and what no dial can show is kept beside. */
  fill(values) {
    this.others = {};
    for (const [name, value] of Object.entries(values)) {
      const plain = name.replaceAll("-", "_");
      const setting = SAME[plain] ?? plain;
      if (value !== null) this.others[setting] = Array.isArray(value) ? value.join(LINES.includes(setting) ? ":" : ",") : value;
    }
    // Whether it is a preview is said by the button.
    delete this.others.preview;
    for (const setting of Object.keys(this.inputs)) {
      const value = this.fits(setting, this.others[setting]) ? this.others[setting] : null;
      if (value !== null) delete this.others[setting];
      this.set(setting, value);
    }
    this.say();
  }

  fits(setting, value) {
    const { input, dial } = this.inputs[setting];
    if (input.options) return [...input.options].some((option) => option.value === value);
    const place = Number(value) / (dial?.scale ?? 1);
    return place >= Number(input.min) && place <= Number(input.max);
  }

  /** Leave out one option that no dial shows. */
  forget(setting) {
    delete this.others[setting];
    this.say();
    this.changed();
  }

  drop() {
    this.others = {};
    this.say();
    this.changed();
  }

  say() {
    const words = Object.entries(this.others).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
    this.said.textContent = `also: ${words.join(", ")}`;
    this.line.hidden = !words.length;
  }

  /** All that a render is asked for, by the options' names. */
  values() {
    return { ...this.others, ...this.turned() };
  }

  /** What was touched. */
  turned() {
    const values = {};
    for (const setting of this.touched) {
      const { input, dial } = this.inputs[setting];
      if (dial) values[setting] = Math.round(Number(input.value) * dial.scale * 1e4) / 1e4;
      else if (input.value === "") continue;
      else values[setting] = input.type === "number" ? Number(input.value) : input.value;
    }
    return values;
  }

  /** What is heard at once on the wall, touched or not. */
  live() {
    const of = (setting) => Number(this.inputs[setting].input.value);
    const band = (setting) => (this.inputs[setting].input.value === "" ? null : of(setting));
    return {
      amount: of("amount"), mix: of("mix") / 100, transients: of("transients"),
      keepBelow: band("keep_below"), keepAbove: band("keep_above"),
    };
  }
}
