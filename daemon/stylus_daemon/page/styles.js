/** The sounds to give: dropped references and the library, of which several may be chosen to be blended. */

import { ask, library, spectrogram, upload } from "./api.js";
import { attempt, byId, complain, make } from "./dom.js";
import { dropZone } from "./drop.js";

export class StylesPanel {
  constructor(changed) {
    this.changed = changed;
    this.references = [];
    this.styles = [];
    this.warm = new Set();
    /** What a render takes: names of the library and paths of dropped files. */
    this.chosen = new Set();
    dropZone(document.querySelector('[data-drop="style"]'), byId("style-file"), (files) => this.take(files));
  }

  async take(files) {
    const refused = [];
    for (const file of files) {
      try {
        const taken = await upload(file);
        this.references.push(taken);
        this.chosen.add(taken.path);
      } catch (error) {
        refused.push(error.message);
      }
    }
    complain(refused.join(" "));
    this.draw();
    this.changed();
  }

  /** All there are: names of the library, and paths of dropped files that have other names. */
  all() {
    const stem = (name) => name.replace(/\.[^.]*$/, "");
    const known = new Set(this.styles.map((style) => style.name));
    const others = this.references.filter((one) => !known.has(stem(one.name)) && known.add(stem(one.name)));
    return [...this.styles.map((style) => style.name), ...others.map((one) => one.path)];
  }

  /** Read the library again: what the daemon says of it, null where it says nothing. */
  async refresh() {
    let about;
    try {
      about = await library();
    } catch (error) {
      complain(error);
      return null;
    }
    // What is pressed just now must not be made anew: that would be no click.
    const same = this.drawn === JSON.stringify(about.styles);
    this.styles = about.styles;
    const known = new Set([...this.styles.map((style) => style.name), ...this.references.map((one) => one.path)]);
    const gone = [...this.chosen].filter((one) => !known.has(one));
    for (const one of gone) this.chosen.delete(one);
    if (!same || gone.length) this.draw();
    return about;
  }

  setWarm(identities) {
    const warm = new Set(identities);
    const same = warm.size === this.warm.size && [...warm].every((one) => this.warm.has(one));
    this.warm = warm;
    if (!same) this.draw();
  }

  choose(one, chosen = !this.chosen.has(one)) {
    if (chosen) this.chosen.add(one);
    else this.chosen.delete(one);
    this.draw();
    this.changed();
  }

  async keep(reference) {
    const name = reference.name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}_ .-]/gu, "_").slice(0, 64).replace(/^[^\p{L}\p{N}_]+/u, "") || "style";
    const kept = await attempt(() => ask("/stylus/style/add", name, reference.path));
    if (!kept) return;
    this.references = this.references.filter((one) => one !== reference);
    if (this.chosen.delete(reference.path)) this.chosen.add(name);
    await this.refresh();
    this.changed();
  }

  /** Of this page only; the daemon's copy goes by itself. */
  remove(reference) {
    this.references = this.references.filter((one) => one !== reference);
    this.chosen.delete(reference.path);
    this.draw();
    this.changed();
  }

  draw() {
    this.drawn = JSON.stringify(this.styles);
    // The focus stays where it is, though its element is made anew.
    const { style, reference, what } = document.activeElement?.dataset ?? {};
    byId("references").replaceChildren(...this.references.map((one) =>
      make("li", {},
        make("label", {}, make("input", { type: "checkbox", data: { reference: one.path, what: "choose" }, checked: this.chosen.has(one.path), onchange: () => this.choose(one.path) }), ` ${one.name} `),
        make("button", { type: "button", data: { reference: one.path, what: "keep" }, textContent: "Keep in the library", "aria-label": `Keep ${one.name} in the library`, onclick: () => this.keep(one) }),
        make("button", { type: "button", data: { reference: one.path, what: "remove" }, textContent: "Remove", "aria-label": `Remove ${one.name}`, onclick: () => this.remove(one) }))));
    byId("library").replaceChildren(...this.styles.map((style) => {
      const warm = this.warm.has(style.identity);
      return make("li", {}, make("button", {
        type: "button", data: { style: style.name }, "aria-pressed": String(this.chosen.has(style.name)), onclick: () => this.choose(style.name),
      }, make("img", { src: spectrogram(style.path), alt: "", loading: "lazy" }), make("span", { textContent: style.name }),
      make("span", { className: warm ? "small warm" : "small", textContent: `${style.seconds.toFixed(1)} s${warm ? ", ready" : ""}` })));
    }));
    byId("library-empty").hidden = this.styles.length > 0;
    if (style) document.querySelector(`#library [data-style="${CSS.escape(style)}"]`)?.focus();
    if (reference) document.querySelector(`#references [data-reference="${CSS.escape(reference)}"][data-what="${what}"]`)?.focus();
  }
}
