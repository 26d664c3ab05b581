// Reads the files that belong to the page. A failure is an Error whose message is a sentence for the person.

export class Trouble extends Error {}

async function answer(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { credentials: "omit", ...options });
  } catch {
    throw new Trouble(`${url} could not be loaded. Check the connection, and load the page again.`);
  }
  if (!response.ok) {
    throw new Trouble(`${url} could not be loaded: the server answered ${response.status}.`);
  }
  return response;
}

// `no-cache` asks the server whether a file has changed, so that files of two exports are never mixed.
export async function json(url) {
  const response = await answer(url, { cache: "no-cache" });
  try {
    return await response.json();
  } catch {
    throw new Trouble(`${url} is damaged. Export the page again.`);
  }
}

// The bytes of a file that has `size` of them; `report(loaded)` is called as they come.
export async function bytes(url, size, report) {
  const response = await answer(url, { cache: "no-cache" });
  const result = new Uint8Array(size);
  const reader = response.body.getReader();
  let loaded = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (loaded + value.length > size) throw new Trouble(`${url} is larger than it was exported. Export the page again.`);
    result.set(value, loaded);
    loaded += value.length;
    report(loaded);
  }
  if (loaded < size) throw new Trouble(`${url} is cut off after ${loaded} of ${size} bytes. Export the page again.`);
  return result;
}

// The bytes of a file with this hash, which the browser itself compares.
export async function checked(url, integrity) {
  try {
    const response = await fetch(url, { integrity, credentials: "omit", mode: "cors" });
    if (response.ok) return await response.arrayBuffer();
  } catch {
    // Either it cannot be loaded, which `answer` finds out, or it has another hash.
    await answer(url, { method: "HEAD", mode: "cors" });
    throw new Trouble(`${url} is not the file that this page was made with: its hash is another one. It was not used.`);
  }
  await answer(url, { mode: "cors" });
  throw new Trouble(`${url} could not be loaded. Load the page again.`);
}
