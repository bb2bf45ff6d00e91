/** The queue: what runs, what waits in which order, what came of it. */

import { ask } from "./api.js";
import { attempt, byId, make, time } from "./dom.js";

const WAITING = ["queued", "paused"];
const SHOWN = 60;

export class Queue {
  /** `show` is called with the number of a job whose result is wanted. */
  constructor(show) {
    this.show = show;
    this.jobs = new Map();
    this.rows = new Map();
  }

  all(jobs) {
    this.jobs = new Map(jobs.map((job) => [job.id, job]));
    this.draw();
  }

  job(job) {
    this.jobs.set(job.id, job);
    this.draw();
  }

  progress({ job, fraction, stage, eta }) {
    const known = this.jobs.get(job);
    if (!known || known.state !== "running") return;
    Object.assign(known, { fraction, stage, eta });
    this.fill(this.rows.get(job), known);
  }

  ordered() {
    const isActive = (job) => job.state === "running" || WAITING.includes(job.state);
    const active = [...this.jobs.values()].filter(isActive);
    const ended = [...this.jobs.values()].filter((job) => !isActive(job));
    active.sort((one, other) => (other.state === "running") - (one.state === "running") || other.priority - one.priority || one.id - other.id);
    ended.sort((one, other) => other.changed - one.changed);
    return [...active, ...ended.slice(0, SHOWN)];
  }

  draw() {
    const listed = this.ordered();
    const place = byId("queue");
    byId("jobs-empty").hidden = listed.length > 0;
    const rows = listed.map((job) => {
      if (!this.rows.has(job.id)) this.rows.set(job.id, this.row());
      const row = this.rows.get(job.id);
      this.fill(row, job);
      return row.element;
    });
    const there = [...place.children];
    // Moving an element takes the focus from it.
    if (there.length !== rows.length || there.some((element, at) => element !== rows[at])) {
      const focused = document.activeElement;
      place.replaceChildren(...rows);
      if (place.contains(focused)) focused.focus();
    }
    for (const number of this.rows.keys()) if (!listed.some((job) => job.id === number)) this.rows.delete(number);
  }

  row() {
    const row = { title: make("span"), state: make("span", { className: "small" }), bar: make("progress", { max: 1, value: 0 }), buttons: make("span", { className: "row" }) };
    row.element = make("li", {}, make("div", { className: "row" }, row.title, row.state), row.bar, row.buttons);
    return row;
  }

  fill(row, job) {
    if (!row) return;
    const styles = job.styles.join(" + ");
    row.title.textContent = job.kind === "audition" ? `Audition of ${job.name}` : job.kind === "warm" ? `Reading ${styles}` : `${job.name} → ${styles}`;
    const percent = `${Math.round(100 * job.fraction)} %`;
    const left = job.eta !== null && job.eta !== undefined ? `, ${time(job.eta)} left` : "";
    const wish = job.wish === "cancel" ? ", ending after this step" : job.wish === "pause" ? ", pausing after this step" : "";
    row.state.textContent = job.state === "running" ? `${percent} ${job.stage}${left}${wish}` : job.state === "failed" ? job.error : job.state;
    row.state.className = job.state === "failed" ? "failed" : "small";
    row.element.dataset.state = job.state;
    row.element.dataset.job = job.id;
    row.bar.hidden = job.state !== "running";
    row.bar.value = job.fraction;
    row.bar.setAttribute("aria-label", `Progress of job ${job.id}`);
    const wanted = this.actions(job);
    const key = wanted.map(([text]) => text).join();
    if (row.key === key) return;
    row.key = key;
    row.buttons.replaceChildren(...wanted.map(([text, act]) =>
      make("button", { type: "button", textContent: text, "aria-label": `${text}: ${row.title.textContent}`, onclick: () => attempt(act) })));
  }

  actions(job) {
    const say = (what, ...more) => () => ask(`/stylus/job/${what}`, job.id, ...more);
    const cancel = ["Cancel", say("cancel")];
    if (job.state === "running") return [["Pause", say("pause")], cancel];
    if (job.state === "queued") return [["Up", () => this.move(job.id, -1)], ["Down", () => this.move(job.id, 1)], ["Pause", say("pause")], cancel];
    if (job.state === "paused") return [["Resume", say("resume")], cancel];
    return job.state === "done" && job.path ? [["Show", () => this.show(job.id)]] : [];
  }

  /** One place up or down: the priorities of those that wait are dealt anew where the order asks for it. */
  async move(number, by) {
    const waiting = this.ordered().filter((job) => WAITING.includes(job.state));
    const at = waiting.findIndex((job) => job.id === number);
    const to = at + by;
    if (at < 0 || to < 0 || to >= waiting.length) return;
    const priorities = waiting.map((job) => job.priority);
    waiting.splice(to, 0, ...waiting.splice(at, 1));
    // From the last upwards each keeps its place's priority, or takes more where the one behind would go first.
    const wanted = new Map();
    let least = -1000;
    for (let place = waiting.length - 1; place >= 0; place -= 1) {
      const { id } = waiting[place];
      const behind = waiting[place + 1];
      wanted.set(id, Math.max(priorities[place], behind && behind.id < id ? least + 1 : least));
      least = wanted.get(id);
    }
    for (const job of waiting) if (wanted.get(job.id) !== job.priority) await ask("/stylus/job/priority", job.id, wanted.get(job.id));
  }
}
