/** The daemon, as the page asks it. Every command is one of OSC's, in JSON. */

async function answered(response) {
  if (response.ok) return response;
  let said = response.statusText;
  try {
    said = (await response.json()).message;
  } catch {
    /* no JSON: the status says it */
  }
  throw new Error(said);
}

async function fetched(path, options) {
  try {
    return await answered(await fetch(path, options));
  } catch (error) {
    if (error instanceof TypeError) throw new Error("The daemon does not answer; is it running?");
    throw error;
  }
}

const json = async (path) => (await fetched(path)).json();
const of = (path) => `path=${encodeURIComponent(path)}`;

/** What a command's reply carries; the same `rid` is the same request, so that one that is sent again starts nothing. */
export async function ask(address, ...args) {
  const body = JSON.stringify({ address, arguments: args, rid: crypto.randomUUID() });
  const sent = { method: "POST", headers: { "Content-Type": "application/json" }, body };
  let response;
  try {
    response = await fetched("/api/ask", sent);
  } catch (error) {
    if (!/does not answer/.test(error.message)) throw error;
    response = await fetched("/api/ask", sent);
  }
  return (await response.json()).reply;
}

/** Copy a dropped file to the daemon: `{path, name}`. */
export async function upload(file) {
  const headers = { "Content-Type": "application/octet-stream" };
  const path = `/api/uploads?name=${encodeURIComponent(file.name)}`;
  return (await fetched(path, { method: "POST", headers, body: file })).json();
}

export const library = () => json("/api/library");
export const overview = (path) => json(`/api/overview?${of(path)}`);
export const job = (number) => json(`/api/jobs/${number}`);
export const audition = (number) => json(`/api/auditions/${number}`);
export const spectrogram = (path) => `/api/spectrogram?${of(path)}`;
export const download = (path) => `/api/file?${of(path)}`;

/** Samples of a file: `{channels: Float32Array[], rate, total}`; `start` and `samples` at the file's own rate. */
export async function sound(path, start, samples) {
  const response = await fetched(`/api/sound?${of(path)}&start=${start}&samples=${samples}`);
  const count = Number(response.headers.get("X-Channels"));
  const interleaved = new Float32Array(await response.arrayBuffer());
  const length = interleaved.length / count;
  const channels = Array.from({ length: count }, () => new Float32Array(length));
  for (let at = 0; at < length; at += 1) {
    for (let channel = 0; channel < count; channel += 1) channels[channel][at] = interleaved[at * count + channel];
  }
  return {
    channels,
    rate: Number(response.headers.get("X-Sample-Rate")),
    total: Number(response.headers.get("X-Total")),
  };
}

/** The score of a style of an audition, and the audition's envelope of attacks. */
export const score = async (number, style) =>
  new Int16Array(await (await fetched(`/api/auditions/${number}/${style}`)).arrayBuffer());
export const attack = async (number) =>
  new Float32Array(await (await fetched(`/api/auditions/${number}/attack`)).arrayBuffer());

/** Listen to the daemon: `on` has `all`, `job`, `progress`, `daemon` and `connected`. Comes back by itself. */
export function listen(on) {
  const source = new EventSource("/api/events");
  const leave = () => source.close();
  for (const kind of ["all", "job", "progress", "daemon"]) {
    source.addEventListener(kind, (event) => on[kind](JSON.parse(event.data)));
  }
  source.addEventListener("open", () => on.connected(true));
  source.addEventListener("error", () => {
    on.connected(false);
    // A browser gives up on a daemon that is gone for longer than a moment; we do not.
    leave();
    removeEventListener("pagehide", leave);
    setTimeout(() => listen(on), 1000);
  });
  addEventListener("pagehide", leave);
}
