"""`rapid eval` on a tiny model in a folder."""

import dataclasses
import json

import pytest

from rapid_integrations.cli.app import app
from rapid_integrations.cli.evaluate import settings_of
from rapid_integrations.cli.options import ModelOptions
from rapid_integrations.evaluation import runner
from rapid_integrations.evaluation.predictions import read_predictions
from tests.toys.command_line import CliRunner
from tests.toys.embedding_model import save_tiny_embedder
from tests.toys.models import SHALLOW, byte_tokenizer, tiny_model, words
from tests.toys.thinking import EMPTY, switched_model, switched_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    tiny_model("llama", 0, max_position_embeddings=4096, **SHALLOW).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    save_tiny_embedder(folder / "embedder")
    (folder / "document.txt").write_text(words(1, 200))
    rows = [{"file": "document.txt", "question": f"which {word}?", "answer": word} for word in ("cat", "dog")]
    (folder / "mine.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


@pytest.fixture
def evaluate(folder, monkeypatch):
    monkeypatch.chdir(folder)
    model = ("--embedder", "./embedder", "--dtype", "float32")
    small = ("--chunk-tokens", "64", "--min-tokens", "64")

    def run(*arguments, target="./model"):
        given = (*arguments, "--target", target, *model, *small) if arguments[0] == "run" else arguments
        return CliRunner().invoke(app, ["eval", *given], env={"COLUMNS": "160"})

    return run


def test_a_run_its_report_and_its_continuation(evaluate, folder, monkeypatch):
    out = folder / "out"
    common = ("run", str(out), "--task", "own:mine.jsonl")
    result = evaluate(*common, "--study", "success", "--max-questions", "1")
    assert result.exit_code == 0, result.output
    assert "own:mine" in result.stdout and "Gain over lc" in result.stdout and "Decoding" in result.stdout
    lines = (out / "predictions.jsonl").read_text().strip().split("\n")
    assert json.loads(lines[0])["run"]["target"] == "./model" and len(lines) == 4
    assert json.loads(lines[1])["method"] == "lc"

    made = []
    predict = runner.Runner._predict
    monkeypatch.setattr(
        runner.Runner,
        "_predict",
        lambda self, d, i, method, **given: made.append((i.id, method.name)) or predict(self, d, i, method, **given),
    )
    result = evaluate(*common, "--method", "lc", "--method", "rapid:eta=2")
    assert result.exit_code == 0, result.output
    assert made[0] == ("1", "lc") and sorted(made[1:]) == [("0", "rapid:eta=2"), ("1", "rapid:eta=2")]
    at_once = {key[1:]: p.at_once for p in read_predictions(out / "predictions.jsonl")[1] for key in [p.key]}
    assert at_once["0", "lc"] == at_once["1", "lc"] == 1 and at_once["0", "rapid:eta=2"] == 2

    result = evaluate("report", str(out), "--method", "lc", "--method", "rag")
    assert result.exit_code == 0, result.output
    summary = json.loads((out / "summary.json").read_text())
    (table,) = summary["tables"]
    assert table["questions"] == {"own:mine": 1} and table["methods"].keys() == {"lc", "rag"}
    assert sum(summary["right"].values()) == 1
    assert evaluate("report", str(out)).exit_code == 0
    assert json.loads((out / "summary.json").read_text())["tables"][0]["methods"].keys() >= {"lc", "rapid:eta=2"}
    assert evaluate("report", str(out), "--baseline", "rag").exit_code == 0
    assert json.loads((out / "summary-over-rag.json").read_text())["tables"][0]["baseline"] == "rag"
    refused = evaluate("report", str(out), "--baseline", "sd")
    assert refused.exit_code == 1 and "--baseline sd has no predictions here; there are: lc, rag" in refused.stderr
    pytest.importorskip("matplotlib")
    assert (out / "main.png").exists() and (out / "success.png").exists()


def test_a_run_knows_the_arguments_of_its_template(evaluate, folder, tmp_path):
    switched_model().save_pretrained(folder / "switched")
    switched_tokenizer().save_pretrained(folder / "switched")
    run = ("run", str(tmp_path), "--task", "own:mine.jsonl", "--method", "lc", "--max-questions", "1")
    off = ("--template-argument", "enable_thinking=false")
    result = evaluate(*run, *off, target="./switched")
    assert result.exit_code == 0, result.output
    settings, (prediction,) = read_predictions(tmp_path / "predictions.jsonl")
    assert settings["chat_template_kwargs"] == {"enable_thinking": False}
    other = evaluate(*run, target="./switched")
    assert other.exit_code == 1 and "chat_template_kwargs" in other.stderr
    plain = evaluate("run", str(tmp_path / "plain"), *run[2:], target="./switched")
    assert plain.exit_code == 0, plain.output
    settings, (default,) = read_predictions(tmp_path / "plain" / "predictions.jsonl")
    assert "chat_template_kwargs" not in settings
    assert prediction.usage.prompt_tokens == default.usage.prompt_tokens + len(EMPTY)


def test_several_runs_as_one_table(evaluate, folder):
    runs = [str(folder / name) for name in ("one", "two")]
    for out, task in zip(runs, ("needle@300", "own:mine.jsonl"), strict=True):
        made = ("--task", task, "--max-documents", "1", "--method", "lc", "--method", "rag", "--method", "rapid:eta=2")
        assert evaluate("run", out, *made).exit_code == 0
    assert evaluate("run", runs[0], "--task", "needle@300", "--max-documents", "1", "--method", "rapid").exit_code == 0
    result = evaluate("report", *runs)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert "needle@300, one" in shown and "own:mine, two" in shown and "average" in shown
    assert "Gain over lc (points)" in shown and "Gain over the better of lc and rag, task by task" in shown
    assert "rapid " not in shown  # the second run has not been asked that way
    refused = evaluate("report", *runs, "--baseline", "rapid")
    assert refused.exit_code == 1 and "there are: lc, rag, rapid:eta=2" in " ".join(refused.stderr.split())
    elsewhere = folder / "elsewhere" / "one"  # of the same name
    assert evaluate("run", str(elsewhere), "--task", "own:mine.jsonl", "--method", "sd").exit_code == 0
    for arguments in ((runs[0], str(elsewhere)), (*runs, "--method", "lc", "--method", "rapid")):
        refused = evaluate("report", *arguments)
        said = " ".join(refused.stderr.split())
        assert refused.exit_code == 1 and "methods that a task does not have" in said
        assert "elsewhere/one: sd" in said or "own:mine, two: lc, rag, rapid:eta=2" in said
    assert "given twice" in evaluate("report", runs[0], runs[0] + "/../one").stderr


def test_the_halves_of_the_questions(evaluate, folder):
    out = folder / "halves"
    made = ("run", str(out), "--task", "needle@300", "--max-documents", "3", "--method", "lc", "--method", "rag")
    assert evaluate(*made).exit_code == 0
    counts = {}
    for half in ("tune", "test"):
        assert evaluate("report", str(out), "--half", half).exit_code == 0
        (table,) = json.loads((out / f"summary-{half}.json").read_text())["tables"]
        counts[half] = table["questions"]["needle@300"]
    _, predictions = read_predictions(out / "predictions.jsonl")
    assert counts["tune"] + counts["test"] == 12 and min(counts.values()) > 0
    for method in ("lc", "rag"):  # a question is in one half, whatever answers it
        tuned = {p.item for p in predictions if p.method == method and p.half == "tune"}
        assert tuned == {p.item for p in predictions if p.half == "tune"} and len(tuned) == counts["tune"]


def test_documents_are_read_from_disk_where_methods_are_added(evaluate, folder):
    made = ("run", str(folder / "again"), "--task", "needle@300", "--max-documents", "1", "--prefix-cache", "read")
    assert evaluate(*made, "--method", "lc").exit_code == 0
    assert evaluate(*made, "--method", "rapid:eta=2").exit_code == 0
    _, predictions = read_predictions(folder / "again" / "predictions.jsonl")
    fresh = [p.stats.cached_prompt_tokens for p in predictions]
    # One question of the first method, whichever comes first, has nothing to begin with.
    assert min(fresh[:4]) == 0 and min(fresh[4:]) > 0


def test_lengths(evaluate, folder):
    options = ("--study", "lengths", "--length", "300", "--length", "600", "--retrieved", "64")
    result = evaluate("run", str(folder / "lengths"), "--task", "needle", "--max-documents", "1", *options)
    assert result.exit_code == 0, result.output
    assert "needle@300" in result.stdout and "needle@600" in result.stdout
    assert (folder / "lengths" / "lengths.png").exists()


def test_evidence_that_retrieval_brings(evaluate, folder):
    text = " ".join(words(seed, 60) for seed in range(8))
    passage = " ".join(text.split()[100:130])
    row = {"document": text, "questions": [{"question": passage, "evidence": passage}] * 2}
    (folder / "evidence.jsonl").write_text(json.dumps(row))
    out = folder / "evidence"
    options = ("--settings", "chunk_tokens=64", "--settings", "paper,search=words", "--max-questions", "1")
    model = ("--embedder", "./embedder", "--dtype", "float32")
    result = evaluate("retrieval", str(out), "--data", "evidence.jsonl", *options, *model)
    assert result.exit_code == 0, result.output
    assert "Evidence recall" in result.stdout and "evidence" in result.stdout and "Over all sets" in result.stdout
    figures = json.loads((out / "retrieval.json").read_text())
    assert figures["run"]["settings"]["paper,search=words"]["chunk_tokens"] == 512
    assert figures["tables"]["chunk_tokens=64"]["evidence"]["questions"] == 1
    assert figures["tables"]["chunk_tokens=64"]["evidence"]["recall"] == 1.0
    assert len((out / "retrieval.jsonl").read_text().strip().split("\n")) == 2
    refused = evaluate("retrieval", str(out), "--data", "missing.jsonl", *model)
    assert refused.exit_code == 1 and "missing.jsonl cannot be read" in " ".join(refused.stderr.split())
    refused = evaluate("retrieval", str(out), "--data", "evidence.jsonl", "--settings", "published", *model)
    assert refused.exit_code == 1 and "preset" in refused.stderr
    pytest.importorskip("matplotlib")
    assert (out / "retrieval.png").exists()


def test_a_time_limit(evaluate, folder):
    result = evaluate("run", str(folder / "none"), "--task", "needle", "--max-documents", "1", "--minutes", "0")
    assert "the same command goes on" in result.stderr
    assert result.exit_code == 1 and "nothing to compare yet" in " ".join(result.stderr.split())


def test_what_there_is(evaluate):
    result = evaluate("tasks")
    for name in ("longbench-v2:cot", "infinitebench:qa", "magicdec", "robustness"):
        assert name in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "out2", "--task", "needles"), "no task is called 'needles'"),
        (("run", "out2", "--task", "needle", "--method", "rapid:beta=1"), "not an option of rapid"),
        (("run", "out2", "--task", "needle", "--study", "speed"), "no study is called 'speed'"),
        (("run", "out2", "--task", "own:missing.jsonl"), "missing.jsonl cannot be read"),
        (("report", "nowhere"), "cannot be read"),
    ],
)
def test_errors_are_one_sentence(evaluate, arguments, said):
    result = evaluate(*arguments)
    assert result.exit_code == 1
    assert said in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


def test_other_settings_are_refused(evaluate, folder):
    arguments = ("run", str(folder / "seeded"), "--task", "needle", "--max-documents", "1", "--max-questions", "1")
    assert evaluate(*arguments, "--method", "lc").exit_code == 0
    result = evaluate(*arguments, "--method", "lc", "--seed", "1")
    assert result.exit_code == 1 and "seed: 0 there, 1 here" in " ".join(result.stderr.split())


VALUES = {"more_drafters": ["./other"], "sparse_prefill": 0.9, "quantization": "int8", "drafter_quantization": "int4"}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ModelOptions) if field.name != "device"])
def test_every_choice_of_models_belongs_to_the_folder(field):
    models = ModelOptions()
    changed = dataclasses.replace(models, **{field: VALUES.get(field, "another")})
    assert settings_of(changed) != settings_of(models)
    assert json.loads(json.dumps(settings_of(changed))) == settings_of(changed)


def test_a_folder_of_an_earlier_version_goes_on():
    assert set(settings_of(ModelOptions())) == {"target", "drafter", "draft_lm", "quantization", "embedder", "dtype"}


def test_results_that_cannot_be_written_are_shown(evaluate, folder):
    made = ("run", str(folder / "kept"), "--task", "own:mine.jsonl", "--method", "lc", "--method", "lc")
    assert evaluate(*made).exit_code == 0
    (folder / "kept" / "summary.json").unlink()
    (folder / "kept" / "summary.json").mkdir()
    result = evaluate("report", str(folder / "kept"))
    assert result.exit_code == 1 and "own:mine" in result.stdout
    assert "summary.json cannot be written" in " ".join(result.stderr.split())


def test_places_are_looked_at_before_anything_is_measured(evaluate, folder, monkeypatch):
    monkeypatch.setattr(ModelOptions, "load", lambda *arguments, **options: pytest.fail("the models are loaded"))
    (folder / "a-file").write_text("")
    (folder / "evidence.jsonl").write_text('{"document": "a b", "questions": [{"question": "b?", "evidence": "b"}]}')
    refused = evaluate("retrieval", str(folder / "a-file" / "out"), "--data", "evidence.jsonl")
    assert refused.exit_code == 1 and "cannot be a folder" in " ".join(refused.stderr.split())
    refused = evaluate("run", str(folder / "a-file"), "--task", "own:mine.jsonl")
    assert refused.exit_code == 1 and "cannot be written" in " ".join(refused.stderr.split())
