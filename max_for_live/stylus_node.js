// The device's line to the Stylus daemon, for Max's `node.script`: sockets, starting the daemon, and nothing of Live.
//
// What it hears and says stands in README.md beside it.

"use strict";

const crypto = require("node:crypto");
const dgram = require("node:dgram");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const { spawn } = require("node:child_process");

const HOST = "127.0.0.1";
const PORT = 9109;

/** The longest packet that goes over UDP, bytes: macOS sends no datagram of over 9 KB. */
const DATAGRAM = 4000;

/** How long an answer is waited for before a request is sent again, ms; behind the last it is given up. */
const WAITS = [300, 600, 1200, 2400];

/** Time between two pings, ms, and after how many silent ones there is no daemon. */
const PING = 2000;
const SILENT = 3;

/** Requests of which the daemon takes the port that is to hear of the job. */
const RENDERS = ["/stylus/render", "/stylus/render/file"];

// OSC

const CONSTANTS = { T: true, F: false, N: null };

/** Numbers by their type tag: how many bytes, and Node's name for their form. */
const NUMBERS = { i: [4, "Int32BE"], h: [8, "BigInt64BE"], f: [4, "FloatBE"], d: [8, "DoubleBE"] };

/** A message as a packet. Throws for what OSC has no form for. */
function encode(address, values) {
  if (typeof address !== "string" || !address.startsWith("/")) throw new Error("an OSC address begins with a slash");
  const written = values.map(argument);
  const tags = written.map(([tag]) => tag).join("");
  return Buffer.concat([text(address), text(`,${tags}`), ...written.map(([, bytes]) => bytes)]);
}

/** An argument's type tag and bytes. */
function argument(value) {
  const constant = Object.keys(CONSTANTS).find((tag) => CONSTANTS[tag] === value);
  if (constant) return [constant, Buffer.alloc(0)];
  if (typeof value === "string") return ["s", text(value)];
  if (Buffer.isBuffer(value)) return ["b", blob(value)];
  if (typeof value !== "number") throw new Error(`${JSON.stringify(value)} cannot be sent over OSC`);
  const tag = value === (value | 0) ? "i" : Number.isSafeInteger(value) ? "h" : "d";
  const [size, form] = NUMBERS[tag];
  const bytes = Buffer.alloc(size);
  bytes[`write${form}`](tag === "h" ? BigInt(value) : value);
  return [tag, bytes];
}

function text(value) {
  if (value.includes("\0")) throw new Error("a text with a NUL cannot be sent over OSC");
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([bytes, Buffer.alloc(4 - (bytes.length % 4))]);
}

function blob(bytes) {
  return Buffer.concat([uint32(bytes.length), bytes, Buffer.alloc(-bytes.length & 3)]);
}

function uint32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** The `{ address, values }` of a packet with one message; null for anything else. The daemon sends no bundles. */
function decode(packet) {
  let at = 0;
  const take = (size) => {
    if (size > packet.length - at) throw new RangeError("the packet ends too soon");
    at += size;
    return packet.subarray(at - size, at);
  };
  const takeText = () => {
    const size = packet.indexOf(0, at) - at;
    if (size < 0) throw new RangeError("a text without an end");
    const bytes = take(size + 4 - (size % 4)).subarray(0, size);
    const value = bytes.toString("utf8");
    if (!Buffer.from(value, "utf8").equals(bytes)) throw new RangeError("a text that is not UTF-8");
    return value;
  };
  const takeValue = (tag) => {
    if (tag in CONSTANTS) return CONSTANTS[tag];
    if (tag === "s") return takeText();
    if (tag === "b") {
      const size = take(4).readUInt32BE();
      return take(size + (-size & 3)).subarray(0, size);
    }
    const [size, form] = NUMBERS[tag];
    // JSON has no exact whole numbers of 64 bits either.
    return Number(take(size)[`read${form}`]());
  };
  try {
    const address = takeText();
    const tags = takeText();
    const values = [...tags.slice(1)].map(takeValue);
    return address[0] === "/" && tags[0] === "," && at === packet.length ? { address, values } : null;
  } catch {
    return null;
  }
}

// Requests and their answers

function refusal(code, message) {
  return { ok: false, code, message };
}

/** One client of the daemon, with a UDP port of its own; `heard` gets each event. */
class Client {
  constructor(heard, failed) {
    this.port = PORT;
    this.heard = heard;
    this.waiting = new Map();
    this.name = crypto.randomBytes(8).toString("hex");
    this.count = 0;
    this.udp = dgram.createSocket("udp4");
    this.udp.on("message", (packet, from) => {
      if (from.address === HOST && from.port === this.port) this.receive(packet);
    });
    this.udp.on("error", failed);
    this.udp.bind(0, HOST);
  }

  /** The daemon's answer, or that there was none. Throws for what cannot be sent. */
  async ask(address, values = [], waits = WAITS) {
    const rid = `${this.name}-${++this.count}`;
    const request = { address, packet: this.packet(address, [rid, ...values]) };
    this.waiting.set(rid, request);
    const answer = await new Promise((resolve) => {
      request.settle = resolve;
      this.send(request, waits);
    });
    this.waiting.delete(rid);
    clearTimeout(request.timer);
    if (request.connection) request.connection.destroy();
    return answer;
  }

  packet(address, values) {
    const packet = encode(address, values);
    if (packet.length <= DATAGRAM || !RENDERS.includes(address)) return packet;
    // A job's events come when the TCP connection is long closed.
    return encode(address, [...values, "reply_port", this.udp.address().port]);
  }

  /** Send a request, and again after each wait: the daemon knows it by its id. */
  send(request, [wait, ...later]) {
    if (wait === undefined) {
      request.settle(refusal("no-daemon", `no daemon answers on port ${this.port}`));
      return;
    }
    if (request.packet.length > DATAGRAM) this.sendOverTcp(request);
    else this.udp.send(request.packet, this.port, HOST, () => {});
    request.timer = setTimeout(() => this.send(request, later), wait).unref();
  }

  sendOverTcp(request) {
    // What an open connection has taken arrives.
    if (request.connection && !request.connection.destroyed) return;
    const connection = net.connect(this.port, HOST);
    let reply = Buffer.alloc(0);
    connection.on("error", () => {});
    connection.on("data", (chunk) => {
      reply = Buffer.concat([reply, chunk]);
      // What is not whole yet is no message.
      if (reply.length >= 4) this.receive(reply.subarray(4, 4 + reply.readUInt32BE()));
    });
    connection.write(Buffer.concat([uint32(request.packet.length), request.packet]));
    request.connection = connection;
  }

  receive(packet) {
    const message = decode(packet);
    if (!message) return;
    const { address, values } = message;
    if (address !== "/stylus/reply" && address !== "/stylus/error") {
      this.heard({ address, arguments: values });
      return;
    }
    const [asked, rid, ...rest] = values;
    const request = this.waiting.get(rid);
    if (!request || request.address !== asked) return;
    request.settle(address === "/stylus/reply" ? { ok: true, arguments: rest } : refusal(...rest));
  }
}

// What lies on this machine

/** The user's data folder, where `stylus` has it too. */
function dataFolder(platform = process.platform, env = process.env, home = os.homedir()) {
  const { join } = platform === "win32" ? path.win32 : path.posix;
  if (env.STYLUS_HOME) return env.STYLUS_HOME;
  if (platform === "darwin") return join(home, "Library", "Application Support", "stylus-audio");
  if (platform === "win32") return join(env.LOCALAPPDATA || join(home, "AppData", "Local"), "stylus-audio");
  return join(env.XDG_DATA_HOME || join(home, ".local", "share"), "stylus-audio");
}

/** What runs `stylus`, as recorded, since Live has not the shell's PATH; null where there is none, or nothing there. */
function program() {
  try {
    const recorded = JSON.parse(fs.readFileSync(path.join(dataFolder(), "installed.json"), "utf8"));
    const there = [recorded.executable, recorded.python].map((one) => (one && fs.existsSync(one) ? one : ""));
    return path.isAbsolute(recorded.executable) && there[0] ? launching(...there) : null;
  } catch {
    return null;
  }
}

/** The program and its first arguments: `stylus` itself, or its Python where that is what has to be started. */
function launching(executable, python, platform = process.platform, translated = isTranslated()) {
  const words = ["-m", "stylus_audio"];
  // `stylus.exe` opens a console of its own, and who closes that ends the daemon.
  if (platform === "win32" && python) return [python, words];
  // What a Live for Intel starts on another processor runs as for Intel, but Python's packages do not.
  if (platform === "darwin" && python && translated) return ["/usr/bin/arch", ["-arm64", python, ...words]];
  return [executable, []];
}

/** Whether we are a program for Intel on Apple's own processor. */
function isTranslated() {
  return process.arch === "x64" && /Apple/.test(os.cpus().map((one) => one.model).join());
}

/** The program that shows a file in its folder, and its arguments. */
function revealing(file, platform = process.platform) {
  if (platform === "darwin") return ["open", ["-R", file]];
  // Behind the comma Explorer wants the path as a word of its own, which is put in quotes.
  if (platform === "win32") return ["explorer.exe", ["/select,", path.win32.normalize(file)]];
  return ["xdg-open", [path.posix.dirname(file)]];
}

// Max

/** The device's side: answers `js`, and tells it whether a daemon is there. */
class Device {
  constructor(max) {
    this.max = max;
    this.failed = (error) => max.post(`Stylus: ${error.message}`);
    this.client = new Client((event) => max.outlet("event", JSON.stringify(event)), this.failed);
    Object.assign(this, { silent: 0, connected: false, starting: false, ended: "", told: "" });
    for (const name of ["request", "port", "start", "reveal"]) {
      // Nothing is thrown into Max.
      max.addHandler(name, (...values) => (async () => this[name](...values))().catch(this.failed));
    }
    // Max has gone without ending us.
    process.once("disconnect", () => process.exit());
    setInterval(() => this.ping(), PING).unref();
    this.ping();
  }

  async request(key, json) {
    let answer;
    try {
      const { address, arguments: values = [] } = JSON.parse(json);
      if (!Array.isArray(values)) throw new Error("its arguments are no list");
      answer = await this.client.ask(address, values);
      if (answer.code === "no-daemon" && !this.connected) answer.message = this.absence().reason;
    } catch (error) {
      answer = refusal("bad-request", `the request cannot be sent: ${error.message}`);
    }
    this.max.outlet("reply", key, JSON.stringify(answer));
  }

  port(number) {
    if (!Number.isInteger(number) || number < 1 || number > 65535) throw new Error(`${number} is no port`);
    if (number === this.client.port) return;
    this.client.port = number;
    Object.assign(this, { silent: 0, told: "" });
    this.ping();
  }

  async ping() {
    const answer = await this.client.ask("/stylus/ping", [], [PING]);
    if (answer.ok) this.present(answer.arguments[0]);
    else if (++this.silent >= SILENT) this.absent();
  }

  present(version) {
    Object.assign(this, { silent: 0, connected: true, starting: false, ended: "" });
    this.tell("connected", { version });
  }

  absent() {
    this.connected = false;
    this.tell("disconnected", this.absence());
  }

  /** Why there is no daemon, in words, and whether one can be started. */
  absence() {
    if (this.starting) return { reason: "the daemon is starting", canStart: false };
    const silence = `no daemon answers on port ${this.client.port}`;
    if (program()) return { reason: this.ended || `${silence}; Start starts one`, canStart: true };
    return { reason: `${silence}; for Start to find it, run \`stylus doctor\` once in a terminal`, canStart: false };
  }

  /** Say it where it is not what was said last. */
  tell(word, about) {
    const json = JSON.stringify(about);
    if (this.told === word + json) return;
    this.told = word + json;
    this.max.outlet(word, json);
  }

  start() {
    if (this.connected || this.starting) return;
    const found = program();
    Object.assign(this, { starting: found !== null, told: "" });
    this.absent();
    if (found) this.runDaemon(...found).catch((error) => this.ending(error.message));
  }

  /** Run it as a process of its own, which stays when Live ends. Throws its last words, or why there is none. */
  async runDaemon(program, first) {
    const folder = dataFolder();
    const file = path.join(folder, "daemon.log");
    const log = fs.openSync(file, "a");
    const before = fs.fstatSync(log).size;
    const words = [...first, "daemon", "--osc-port", String(this.client.port)];
    const stdio = ["ignore", log, log];
    const daemon = spawn(program, words, { cwd: folder, detached: true, windowsHide: true, stdio });
    fs.closeSync(log);
    daemon.unref();
    await new Promise((resolve, reject) => daemon.once("exit", resolve).once("error", reject));
    const said = fs.readFileSync(file).subarray(before).toString("utf8").trim();
    throw new Error(said.split("\n").pop() || "it said nothing");
  }

  ending(why) {
    if (!this.starting) return;
    Object.assign(this, { starting: false, ended: `the daemon did not start: ${why}` });
    this.absent();
  }

  reveal(file) {
    if (!path.isAbsolute(String(file))) throw new Error(`${file} is no whole path`);
    const [program, words] = revealing(file);
    const shown = spawn(program, words, { stdio: "ignore" });
    shown.on("error", this.failed);
    shown.unref();
  }
}

let max = null;
try {
  max = require("max-api");
} catch (error) {
  // Outside of Max the functions below are of use alone.
  if (error.code !== "MODULE_NOT_FOUND") throw error;
}
if (max) new Device(max);

module.exports = { WAITS, encode, decode, dataFolder, launching, revealing };
