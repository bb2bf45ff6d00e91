/** Small words for making and finding elements. */

/** @param {string} id */
export const byId = (id) => document.getElementById(id);

/**
 * An element. Of `properties`, functions are listeners (`onclick`), `data` and `style` are objects, names with a `-`
 * and `role` and `for` are attributes, the rest are properties.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Seconds as a person reads them: `0:04.7`. */
export function time(seconds) {
  const tenths = Math.round(10 * seconds);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
}

/** Bytes as a person reads them. */
export function bytes(count) {
  return count >= 2 ** 30 ? `${(count / 2 ** 30).toFixed(1)} GiB` : `${Math.round(count / 2 ** 20)} MiB`;
}

/** Say what went wrong, in the one place for it; nothing takes it away again but the next success. */
export function complain(error) {
  const notice = byId("notice");
  notice.textContent = error ? String(error.message ?? error) : "";
  notice.hidden = !error;
}

/** Run something, and show its error where it has one. */
export async function attempt(work) {
  try {
    const result = await work();
    complain(null);
    return result;
  } catch (error) {
    complain(error);
    return undefined;
  }
}
