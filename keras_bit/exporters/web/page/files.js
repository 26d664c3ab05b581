// Reads the files that belong to the page. A `Trouble` is an error whose message is a sentence for the person.

export class Trouble extends Error {}

async function answer(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { credentials: "omit", ...options });
  } catch {
    throw new Trouble(`${url} could not be loaded. Check your connection, and load the page again.`);
  }
  if (!response.ok) {
    throw new Trouble(
      `${url} could not be loaded: the server answered ${response.status}. The owner of the page must check this file.`,
    );
  }
  return response;
}

// `no-cache` asks the server whether a file has changed, so that files of two exports are never mixed.
export async function json(url) {
  const response = await answer(url, { cache: "no-cache" });
  try {
    return await response.json();
  } catch {
    throw new Trouble(`${url} is damaged: it is not JSON. The owner of the page must export it again.`);
  }
}

// Returns the content of a file of `size` bytes, and calls `report(loaded)` while it loads.
export async function bytes(url, size, report) {
  const response = await answer(url, { cache: "no-cache" });
  const result = new Uint8Array(size);
  const reader = response.body.getReader();
  let loaded = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (loaded + value.length > size) {
      throw new Trouble(`${url} is larger than it was when it was exported. The owner of the page must copy it again.`);
    }
    result.set(value, loaded);
    loaded += value.length;
    report(loaded);
  }
  if (loaded < size) {
    throw new Trouble(
      `${url} is cut off after ${loaded} of ${size} bytes. Load the page again. If that does not help, its ` +
        "owner must copy the file to the server again.",
    );
  }
  return result;
}

// Returns the content of a file that has this hash. The browser compares the hash.
export async function checked(url, integrity) {
  try {
    const response = await fetch(url, { integrity, credentials: "omit", mode: "cors" });
    if (response.ok) return await response.arrayBuffer();
  } catch {
    // `answer` throws if the file cannot be loaded. If it does not throw, the file has another hash.
    await answer(url, { method: "HEAD", mode: "cors" });
    throw new Trouble(
      `${url} is not the file that this page was made with: its hash differs. The page did not use it. The owner of ` +
        "the page must export it again.",
    );
  }
  await answer(url, { mode: "cors" });
  throw new Trouble(`${url} could not be loaded. Load the page again.`);
}
