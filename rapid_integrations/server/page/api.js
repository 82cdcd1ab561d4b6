// The server's endpoints. Every failure is a `Failure`, whose words `failureWords` has.

const KEY = "rapid.key";

export class Failure extends Error {
  constructor(message, { code = null, status = 0, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { code, status, retryAfter });
  }
}

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Send a request; return its response. */
async function send(path, options = {}) {
  const headers = { ...options.headers };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(error.message, { code: "unreachable" });
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

async function failureOf(response) {
  const wait = Number(response.headers.get("Retry-After")) || null;
  const body = await response.json().catch(() => null);
  return failed(body?.error ?? { message: `The server answered with status ${response.status}.` }, response.status, wait);
}

function failed(error, status, retryAfter = null) {
  return new Failure(String(error.message), { code: error.code, status, retryAfter });
}

const json = async (path, options) => (await send(path, options)).json();

const place = (id) => `/v1/files/${encodeURIComponent(id)}`;

export const model = async () => (await json("/v1/models")).data[0];

/** Return the documents, the oldest first: then a new one changes nothing before it in a prompt. */
export const files = async () => (await json("/v1/files?order=asc")).data;

export const deleteFile = (id) => json(place(id), { method: "DELETE" });

export const fileText = (id) => json(`${place(id)}/text`);

export function upload(file) {
  const form = new FormData();
  form.append("purpose", "assistants");
  form.append("file", file);
  return json("/v1/files", { method: "POST", body: form });
}

/** Ask for a streamed answer; yield its events. A stop by `signal` raises an AbortError. */
export async function* answer(body, signal) {
  const response = await send("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  for await (const data of eventData(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw failed(event.error, 500);
    yield event;
  }
  throw new Failure("the stream ended before the answer did", { code: "cut_off" });
}

/** Yield the data of server-sent events. The server writes each on one line. */
async function* eventData(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Failure(error.message, { code: "cut_off" });
    });
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ")) yield line.slice(6);
    }
  }
}
