// How the rows of a decode step are divided: into chains, and into groups of chains that attend to the same keys.

#pragma once

#include <algorithm>
#include <vector>

#include "attention.h"
#include "interface.h"

namespace {

// A chain of one reader's rows. A tree is several chains: each has rows of its own behind those of its ancestors.
struct Part {
  const Rows* asked;
  int first, rows;   // of its rows, among those of all readers
  int own;           // the first of them, among the reader's
  int depth;         // how many of the reader's rows come before it in its text
  std::vector<int> path;  // of a tree: the reader's rows that make the text, its own included
  int chunks;        // of its attention
  size_t first_place;

  int64_t position() const { return asked->past + depth; }

  // Of row t: which of the reader's rows it is, and how many of those come before it in its text.
  int own_row(int t) const { return own + t - first; }
  int rows_before(int t) const { return depth + t - first; }
  int64_t token(int t) const { return asked->ids[own_row(t)]; }

  // The row for its position of a table (rows, columns) of the reader's.
  template <class N>
  const N* row_of(const N* table, int columns, int t) const {
    return table + size_t(rows_before(t)) * columns;
  }

  // Which row of the last segment its keys and values are written to.
  int64_t cache_row(int t) const { return asked->past - tail().begin + own_row(t); }

  const Segment& tail() const { return asked->segment[asked->segments - 1]; }

  // The keys of the segment in which a whole chunk lies before the new rows, or null.
  const void* holder(int chunk) const {
    const int64_t begin = int64_t(chunk) * CHUNK, end = begin + CHUNK;
    for (int64_t s = 0; s < asked->segments; s++)
      if (end <= (s + 1 < asked->segments ? asked->segment[s + 1].begin : asked->past))
        return begin >= asked->segment[s].begin ? asked->segment[s].keys : nullptr;
    return nullptr;
  }
};

constexpr int LATENT_HEADS = 16;  // at most so many heads are one task over latents: each task packs them once

// Groups of heads that attend as one task each: those that share a key head, and of latent attention, where all of them
// do, at least two groups, so that threads have something to share.
inline int key_groups(const Model& model, const Layer& layer) {
  if (!layer.latent) return layer.kv_heads;
  int together = std::max(1, std::min(LATENT_HEADS, model.heads / 2));
  while (model.heads % together) together--;
  return model.heads / together;
}

// Parts for which the same chunk of the same keys is attended to at once: the keys are then read and packed once.
struct Group {
  int chunk, rows;           // rows: of all members, for one key head
  std::vector<int> members;  // parts
  size_t partial;            // where its results begin: (key_groups, rows)
};

struct Place {  // of a reader's results for one chunk: from `offset` on, and so far from one key head to the next
  size_t offset, stride;
};

struct Task {
  int group, kv;
};

struct Parts {
  std::vector<Part> part;
  std::vector<int> part_of;  // of each row
  std::vector<int> kept;     // rows whose logits are wanted, ascending
  int rows = 0;

  explicit Parts(const Step& step) {
    size_t places = 0;
    for (int r = 0; r < step.readers; r++) {
      const Rows& asked = step.reader[r];
      for (int t = asked.rows - asked.keep; t < asked.rows; t++) kept.push_back(rows + t);
      divide(asked);
    }
    for (Part& each : part) each.first_place = places, places += size_t(each.chunks);
  }

  const Part& of(int t) const { return part[size_t(part_of[size_t(t)])]; }

 private:
  // Adds a reader's chains: one, or of a tree one for each token that does not follow the token in the row before it.
  void divide(const Rows& asked) {
    for (int t = 0; t < asked.rows;) {
      Part chain{&asked, rows, 0, t, 0, {}, 0, 0};
      if (asked.parents) {
        for (int row = asked.parents[t]; row >= 0; row = asked.parents[row]) chain.path.push_back(row);
        std::reverse(chain.path.begin(), chain.path.end());
        chain.depth = int(chain.path.size());
      }
      do {
        if (asked.parents) chain.path.push_back(t);
        part_of.push_back(int(part.size()));
        chain.rows++;
        t++;
      } while (t < asked.rows && (!asked.parents || asked.parents[t] == t - 1));
      chain.chunks = int((chain.position() + chain.rows + CHUNK - 1) / CHUNK);
      rows += chain.rows;
      part.push_back(std::move(chain));
    }
  }
};

// How parts attend in layers with so many groups of heads.
struct Heads {
  int KV, G;                 // groups of heads, and heads of each
  std::vector<Group> groups;
  std::vector<Place> places;  // of each part's chunks
  std::vector<Task> tasks;
  size_t partials = 0;
  int most_rows = 0;         // of one group

  Heads(const Parts& parts, int heads, int of_keys) : KV(of_keys), G(heads / of_keys) {
    const std::vector<Part>& part = parts.part;
    std::vector<int> group_of;            // of each part's chunks
    std::vector<const void*> holders;
    for (int r = 0; r < int(part.size()); r++) {
      const int chunks = part[r].chunks;
      for (int c = 0; c < chunks; c++) {
        int group = -1;
        holders.push_back(part.size() > 1 ? part[r].holder(c) : nullptr);
        for (int other = 0; holders.back() && other < r && group < 0; other++) {
          const size_t place = part[other].first_place + c;
          if (c < part[other].chunks && holders[place] == holders.back()) group = group_of[place];
        }
        if (group < 0) {
          group = int(groups.size());
          groups.push_back({c, 0, {}, 0});
        }
        groups[group].members.push_back(r);
        places.push_back({size_t(groups[group].rows), 0});
        groups[group].rows += G * part[r].rows;
        group_of.push_back(group);
      }
    }
    for (Group& group : groups) {
      group.partial = partials;
      partials += size_t(KV) * group.rows;
      most_rows = std::max(most_rows, group.rows);
    }
    for (size_t i = 0; i < places.size(); i++) {
      places[i].offset += groups[group_of[i]].partial;
      places[i].stride = groups[group_of[i]].rows;
    }
    for (int kv = 0; kv < KV; kv++)
      for (size_t g = 0; g < groups.size(); g++)
        if (groups[g].members.size() > 1) tasks.push_back({int(g), kv});  // the longest ones first
    for (const Part& each : part)
      for (int kv = 0; kv < KV; kv++)
        for (int c = 0; c < each.chunks; c++) {
          const int group = group_of[each.first_place + c];
          if (groups[group].members.size() == 1) tasks.push_back({group, kv});
        }
  }
};

// The same for every layer: layers with as many groups of as many heads share theirs.
struct HeadsOfLayers {
  std::vector<Heads> kinds;
  std::vector<int> kind_of;  // of each layer

  HeadsOfLayers(const Model& model, const Parts& parts) {
    for (const Layer* layer = model.layer; layer != model.layer + model.layers; layer++) {
      const int of_keys = key_groups(model, *layer), each = layer->heads / of_keys;
      const auto differs = [&](const Heads& heads) { return heads.KV != of_keys || heads.G != each; };
      int kind = 0;
      while (kind < int(kinds.size()) && differs(kinds[size_t(kind)])) kind++;
      if (kind == int(kinds.size())) kinds.emplace_back(parts, layer->heads, of_keys);
      kind_of.push_back(kind);
    }
  }

  const Heads& of(int layer) const { return kinds[size_t(kind_of[size_t(layer)])]; }
};

}  // namespace
