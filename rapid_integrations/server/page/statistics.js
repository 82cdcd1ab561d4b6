// What an answer took, in one line and in a table.

import { make } from "./dom.js";
import { count, counted, seconds } from "./words.js";

/** Return the line below an answer. */
export function summaryOf({ statistics, usage, firstWordS, allS, finish }) {
  const parts = [];
  if (firstWordS !== null) parts.push(`first words after ${seconds(firstWordS)}`);
  if (allS !== null) parts.push(`complete after ${seconds(allS)}`);
  if (statistics?.decode_tps) parts.push(`${statistics.decode_tps.toFixed(1)} tokens per second`);
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  if (cached) parts.push(`${count(cached)} of ${counted(usage.prompt_tokens, "prompt token")} had been read before`);
  if (finish === "length") parts.push("cut at the longest allowed answer");
  return parts.join(" · ");
}

/** Return the table of an answer's statistics; null if there are none. */
export function statisticsTable({ statistics, usage }) {
  if (!statistics) return null;
  const { drafted_tokens: drafted, accepted_tokens: accepted } = statistics;
  const rows = [
    ["Target", statistics.target],
    ["Drafter", statistics.drafter],
    ["Law", statistics.eta === null || statistics.law === "target" ? statistics.law : `${statistics.law}, eta ${statistics.eta}`],
    ["Proposer", statistics.proposer],
    ["Tokens of the answer", count(statistics.tokens)],
    ["Drafted, accepted", drafted ? `${count(drafted)}, ${count(accepted)} (${Math.round((100 * accepted) / drafted)}%)` : "nothing was drafted"],
    ["Tokens per pass", statistics.tokens_per_round.toFixed(2)],
    ["Tokens of the prompt", usage ? `${count(usage.prompt_tokens)}, ${count(statistics.cached_prompt_tokens)} of them read before` : null],
    ["Waiting for memory", statistics.queued_s ? seconds(statistics.queued_s) : null],
    ["Retrieval", seconds(statistics.compress_s)],
    ["Reading", seconds(statistics.prefill_s)],
    ["Writing", `${seconds(statistics.decode_s)}: drafting ${seconds(statistics.propose_s)}, drafter's other passes ${seconds(statistics.score_s)}, target's passes ${seconds(statistics.verify_s)}`],
    ["Chunks chosen by", statistics.retrieval],
    ["Question's words found", statistics.query_coverage === null ? null : `${Math.round(100 * statistics.query_coverage)}%`],
    ["Kernels", statistics.kernels],
  ].filter(([, value]) => value !== null && value !== undefined);
  const list = make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  return make("details", { className: "statistics" }, make("summary", {}, "Statistics"), list);
}
