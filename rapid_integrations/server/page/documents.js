// The list of documents: it uploads, watches how they are read, and knows which are chosen.

import * as api from "./api.js";
import { announce, byId, make } from "./dom.js";
import { bytes, counted, failureWords, progressWords } from "./words.js";

const LOOK_MS = 500; // between two looks at documents that are being read

export class Documents {
  /**
   * @param {string[]} chosen ids of the chosen documents
   * @param {object} told `changed()` after a choice, `failed(failure)`, `opened(file)` for a wish to see the text
   */
  constructor(chosen, told) {
    this.told = told;
    this.chosenIds = new Set(chosen);
    this.items = new Map(); // by id
    this.sending = 0;
    this.looking = null;
    this.channel = new BroadcastChannel("rapid.documents"); // tells other tabs of uploads and deletions
    this.channel.onmessage = () => this.refresh();
    byId("choose").addEventListener("click", () => byId("files").click());
    byId("files").addEventListener("change", ({ target }) => {
      this.add([...target.files]);
      target.value = "";
    });
    this.takeDrops();
  }

  /** The chosen documents, in the order of the list. Those that failed are left out. */
  get chosen() {
    const files = [...this.items.values()].map((item) => item.file);
    return files.filter((file) => this.chosenIds.has(file.id) && file.status !== "error");
  }

  async refresh() {
    clearTimeout(this.looking);
    try {
      this.show(await api.files());
    } catch (failure) {
      this.told.failed(failure);
    }
  }

  /** Upload files one after the other. Each is chosen when it is there. */
  async add(files) {
    for (const file of files) {
      const item = make("li", {}, make("bdi", {}, file.name), make("progress", { aria: { label: `Sending ${file.name}` } }));
      byId("list").append(item);
      announce(`Sending ${file.name}`);
      this.sending += 1;
      try {
        const kept = await api.upload(file);
        this.chosenIds.add(kept.id);
        this.told.changed();
        this.channel.postMessage("added");
      } catch (failure) {
        const [title, text] = failureWords(failure);
        this.told.failed(failure, `${file.name}: ${title}. ${text}`);
      } finally {
        this.sending -= 1;
        item.remove();
      }
      await this.refresh();
    }
  }

  show(files) {
    const there = new Set(files.map((file) => file.id));
    for (const [id, item] of this.items) {
      if (there.has(id)) continue;
      item.element.remove();
      this.items.delete(id);
      if (this.chosenIds.delete(id)) this.told.changed();
    }
    for (const file of files) {
      if (!this.items.has(file.id)) {
        this.items.set(file.id, new Item(file, this));
        byId("list").append(this.items.get(file.id).element);
      }
      this.items.get(file.id).update(file);
    }
    if (files.some(busy)) this.looking = setTimeout(() => this.refresh(), LOOK_MS);
  }

  choose(id, wanted) {
    if (wanted) this.chosenIds.add(id);
    else this.chosenIds.delete(id);
    this.told.changed();
  }

  async delete(file) {
    if (!confirm(`Delete ${file.filename} from the server? Other people cannot ask about it any more, either.`)) return;
    try {
      await api.deleteFile(file.id);
      this.channel.postMessage("deleted");
      announce(`${file.filename} is deleted`);
    } catch (failure) {
      this.told.failed(failure);
    }
    await this.refresh();
    byId("choose").focus(); // the button that had the focus is gone
  }

  takeDrops() {
    let depth = 0; // of elements that the pointer has entered
    const mark = (change) => {
      depth = change === 0 ? 0 : depth + change;
      document.body.classList.toggle("dragging", depth > 0);
    };
    const withFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragenter", (event) => withFiles(event) && mark(1));
    addEventListener("dragleave", (event) => withFiles(event) && mark(-1));
    addEventListener("dragover", (event) => withFiles(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!withFiles(event)) return;
      event.preventDefault(); // or the browser would leave the page for the file
      mark(0);
      this.add([...event.dataTransfer.files]);
    });
  }
}

const busy = (file) => file.status === "uploaded" || file.rapid.progress !== null;

/** One line of the list. It is changed in place, so that the focus stays where it is. */
class Item {
  constructor(file, list) {
    this.box = make("input", { type: "checkbox", checked: list.chosenIds.has(file.id) });
    this.box.addEventListener("change", () => list.choose(file.id, this.box.checked));
    this.about = make("span", { className: "faint" });
    this.bar = make("progress", { hidden: true, aria: { label: `Reading of ${file.filename}` } });
    this.view = make("button", { type: "button", className: "small", aria: { label: `Show the text of ${file.filename}` } }, "Text");
    this.view.addEventListener("click", () => list.told.opened(this.file));
    const gone = make("button", { type: "button", className: "small", aria: { label: `Delete ${file.filename}` } }, "Delete");
    gone.addEventListener("click", () => list.delete(this.file));
    const name = make("label", {}, this.box, make("bdi", {}, file.filename));
    this.element = make("li", {}, name, this.bar, make("div", { className: "about" }, this.about, this.view, gone));
  }

  update(file) {
    const wasBusy = this.file !== undefined && busy(this.file);
    this.file = file;
    const failed = file.status === "error";
    const progress = file.rapid.progress;
    this.about.textContent = aboutFile(file);
    this.about.classList.toggle("wrong", failed);
    this.box.disabled = failed;
    this.box.checked &&= !failed;
    this.view.hidden = file.status !== "processed";
    this.bar.hidden = !busy(file);
    if (progress !== null && progress.total > 1) Object.assign(this.bar, { max: progress.total, value: progress.done });
    else this.bar.removeAttribute("value"); // how far it is is not known
    if (wasBusy && !busy(file)) announce(failed ? `${file.filename} could not be read` : `${file.filename} has been read`);
  }
}

function aboutFile(file) {
  const { tokens, pages, progress } = file.rapid;
  if (file.status === "error") return file.status_details;
  const size = [
    pages === null ? null : counted(pages, "page"),
    tokens === null ? bytes(file.bytes) : counted(tokens, "token"),
  ].filter(Boolean).join(", ");
  if (progress === null) return file.status === "uploaded" ? `${size}, waits to be read` : size;
  return progressWords(progress);
}
