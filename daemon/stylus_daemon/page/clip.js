/** The clip: dropped or chosen, seen, with the loop that the wall plays. */

import { overview, upload } from "./api.js";
import { attempt, byId, time } from "./dom.js";
import { dropZone } from "./drop.js";
import { withLoop } from "./waveform.js";

const SECONDS = 4;
const LONGEST = 30;

const twoBars = ({ bpm, beats }) => (2 * beats * 60) / bpm;

/** What a user would loop: two bars at the file's own tempo, from the bar where it is loudest; else what loops in it. */
function likely({ seconds, loudest, loop, tempo }) {
  const [start, length] = loop ?? [0, seconds];
  if (tempo) {
    const two = twoBars(tempo);
    const bar = Math.floor((loudest - start) / (two / 2) + 0.5);
    const last = Math.floor((length - two) / (two / 2) + 1e-6);
    if (last >= 0) return { start: start + (Math.max(0, Math.min(bar, last)) * two) / 2, length: two };
  }
  if (loop && length <= LONGEST) return { start, length };
  return seconds <= 2 * SECONDS ? { start: 0, length: seconds } : { start: loudest, length: SECONDS };
}

export class ClipPanel {
  /** `taken` is called when the user has chosen another one, `changed` after every change. */
  constructor(changed, taken) {
    Object.assign(this, { changed, taken });
    /** `{path, name}` of the daemon's copy. */
    this.clip = null;
    this.about = null;
    this.loop = { start: 0, length: SECONDS };
    this.turn = 0;
    dropZone(document.querySelector('[data-drop="clip"]'), byId("clip-file"), ([file]) => this.take(file));
    // What is typed is one of them; the other is finer than it is shown.
    byId("loop-start").addEventListener("change", () => this.setLoop(Number(byId("loop-start").value), this.loop.length, true));
    byId("loop-length").addEventListener("change", () => this.setLoop(this.loop.start, Number(byId("loop-length").value), true));
    byId("loop-bpm").addEventListener("change", () => {
      const bpm = Number(byId("loop-bpm").value);
      if (bpm >= 20) this.setLoop(this.loop.start, twoBars({ bpm, beats: this.about.tempo?.beats ?? 4 }), true);
    });
  }

  async take(file) {
    byId("clip-name").textContent = `Reading ${file.name} …`;
    const turn = (this.turn += 1);
    const taken = await attempt(() => upload(file));
    // Another has been chosen meanwhile.
    if (turn !== this.turn) return;
    if (!taken) byId("clip-name").textContent = this.clip?.name ?? "No clip yet.";
    else if (await this.show(taken)) this.taken();
  }

  /** Show a clip that the daemon may read; false where it is gone, or another has been chosen meanwhile. */
  async show(clip, loop = null) {
    byId("clip-name").textContent = `Reading ${clip.name} …`;
    const turn = (this.turn += 1);
    const about = await attempt(() => overview(clip.path));
    if (turn !== this.turn) return false;
    if (!about) {
      byId("clip-name").textContent = this.clip?.name ?? "No clip yet.";
      return false;
    }
    [this.clip, this.about] = [clip, about];
    byId("clip-name").textContent =
      `${clip.name} · ${time(about.seconds)} · ${about.sample_rate} Hz · ${about.channels === 1 ? "mono" : about.channels === 2 ? "stereo" : `${about.channels} channels`}`;
    byId("clip-wave").hidden = byId("loop").hidden = false;
    byId("loop-bpm").value = about.tempo?.bpm ?? "";
    const { start, length } = loop ?? likely(about);
    this.loop = this.within(start, length);
    this.box = withLoop(byId("clip-wave"), about, this.loop.start, this.loop.length, (...at) => this.setLoop(...at));
    this.setLoop(this.loop.start, this.loop.length, false);
    return true;
  }

  /** The nearest loop to a wanted one that the clip has and the wall can play. */
  within(start, length) {
    const total = this.about.seconds;
    const long = Math.min(LONGEST, total, Math.max(0.2, length || SECONDS));
    return { start: Math.min(Math.max(0, start || 0), Math.max(0, total - long)), length: long };
  }

  setLoop(start, length, redraw) {
    this.loop = this.within(start, length);
    byId("loop-start").value = this.loop.start.toFixed(2);
    byId("loop-length").value = this.loop.length.toFixed(2);
    const taken = this.loop.start === start && this.loop.length === length;
    if (redraw || !taken) this.box.move(this.loop.start, this.loop.length);
    this.changed();
  }
}
