// A stand-in for the part of Web Audio that the page's sound uses. Time goes on only with `quantum`, which delivers the
// messages that were sent, makes 128 samples and gives them back.

const QUANTUM = 128;
const processors = {};
let constructed = null;

/** One end of a channel; what it is sent waits until the next quantum. */
class Port {
  onmessage = null;
  other = null;
  inbox = [];

  postMessage(data) {
    this.other.inbox.push(structuredClone(data));
  }

  deliver() {
    for (const data of this.inbox.splice(0)) this.onmessage?.({ data });
  }
}

globalThis.registerProcessor = (name, Processor) => {
  processors[name] = Processor;
};

globalThis.AudioWorkletProcessor = class {
  port = constructed;
};

globalThis.AudioWorkletNode = class {
  constructor(context, name, { outputChannelCount }) {
    this.port = new Port();
    constructed = new Port();
    this.port.other = constructed;
    constructed.other = this.port;
    globalThis.sampleRate = context.sampleRate;
    this.processor = new processors[name]();
    this.outputs = outputChannelCount.map((count) => Array.from({ length: count }, () => new Float32Array(QUANTUM)));
    context.node = this;
  }

  connect() {}

  disconnect() {}
};

export class Context {
  destination = {};
  audioWorklet = { addModule: (url) => import(url) };
  currentTime = 0;
  isClosed = false;

  constructor(sampleRate) {
    this.sampleRate = sampleRate;
  }

  async resume() {}

  async close() {
    this.isClosed = true;
  }

  /** The channels of the next 128 samples. */
  quantum() {
    const { processor, port, outputs } = this.node;
    globalThis.currentTime = this.currentTime;
    processor.port.deliver();
    for (const channel of outputs[0]) channel.fill(NaN);
    if (!processor.process([], outputs, {})) throw new Error("the processor has ended");
    this.currentTime += QUANTUM / this.sampleRate;
    port.deliver();
    return outputs[0].map((channel) => channel.slice());
  }

  /** The channels of so many quanta. */
  quanta(count) {
    const made = Array.from({ length: count }, () => this.quantum());
    return made[0].map((_, channel) => Float32Array.from(made.flatMap((quantum) => [...quantum[channel]])));
  }
}
