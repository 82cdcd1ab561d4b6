"""The loaders on small files in the published formats, and the tasks that are made."""

import json
import re

import pytest

from rapid_integrations.errors import ConfigurationError, PromptError
from rapid_integrations.evaluation.tasks import load_task, plan_task
from rapid_integrations.evaluation.tasks.leval import SUBSETS
from rapid_integrations.evaluation.tasks.rows import find_rows


def count(text):
    return len(text.split())


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")


def load(task, context_tokens=1000):
    return [list(items) for items in task.documents(context_tokens, count)]


# --- L-Eval ---------------------------------------------------------------------------------------------------------


def leval(tmp_path, subset, questions, outputs, letters=False):
    row = {"input": "A long text.", "instructions": questions, "outputs": outputs, "source": "s", "evaluation": "e"}
    write(tmp_path / "LEval" / f"{subset}.jsonl", [row])
    task = load_task(f"leval:{subset}", tmp_path, letters=letters)
    (items,) = load(task)
    return task, items


def test_leval_single_choice(tmp_path):
    task, items = leval(tmp_path, "quality", ["Why?\n (A) x\n (B) y", "Who?"], ["(B) because A", "(C) c"])
    assert [item.id for item in items] == ["0.0", "0.1"] and {item.document_id for item in items} == {"0"}
    assert [task.score(items[0], answer)["accuracy"] for answer in ("B", "(A)", "the answer: B")] == [1, 0, 1]
    prompt = items[0].prompt(items[0].document)
    assert prompt.text.index("A long text.") < prompt.text.index("Why?") and prompt.query == items[0].query
    assert prompt.text[slice(*prompt.context_spans[0])] == "A long text."
    assert items[0].form is None


def test_leval_several_choices_and_letters(tmp_path):
    task, (item,) = leval(tmp_path, "coursera", ["Which?"], ["BD"], letters=True)
    assert task.score(item, "DB") == {"accuracy": 1.0} and task.score(item, "B") == {"accuracy": 0.0}
    options = item.form.regex.split("|")
    assert len(options) == 15 and {"A", "BD", "ABCD"} <= set(options)
    assert leval(tmp_path, "tpo", ["Which?"], ["C"], letters=True)[1][0].form.regex == "A|B|C|D"


def test_leval_true_or_false(tmp_path):
    task, (item,) = leval(tmp_path, "sci_fi", ["So, True or False?"], ["True [fact: False]"], letters=True)
    assert [task.score(item, a)["accuracy"] for a in ("True", "true.", "False", "maybe")] == [1, 1, 0, 0]
    assert item.form.regex == "True|False"


def test_leval_open_answers(tmp_path):
    task, (item,) = leval(tmp_path, "natural_question", ["when?"], ["April 25 , 2018"])
    assert task.metric == "f1" and task.score(item, "April 25 2018") == {"f1": 1.0}
    task, (item,) = leval(tmp_path, "topic_retrieval_longchat", ["first topic?"], ["The role of art"])
    assert task.score(item, "role of art.") == {"accuracy": 1.0, "f1": 1.0}
    pytest.importorskip("rouge_score")
    task, (item,) = leval(tmp_path, "meeting_summ", ["summarise"], ["the cat sat"])
    assert task.metric == "rougeL" and task.score(item, "the cat sat")["rougeL"] == 1.0
    assert "with 3 words" in item.after


def test_every_leval_name_is_known():
    assert all(load_task(f"leval:{subset}").name == f"leval:{subset}" for subset in SUBSETS)


# --- LongBench v2 ---------------------------------------------------------------------------------------------------

LONGBENCH = {
    "_id": "66f",
    "domain": "d",
    "sub_domain": "s",
    "difficulty": "hard",
    "length": "medium",
    "question": "Who {answer}?",
    **{f"choice_{letter}": f"option {letter}" for letter in "ABCD"},
    "answer": "C",
    "context": " The text. ",
}


def test_longbench_v2(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([LONGBENCH]))
    task = load_task("longbench-v2", tmp_path)
    ((item,),) = load(task)
    assert item.groups == {"difficulty": "hard", "length": "medium"} and item.max_new_tokens == 128
    assert item.prompt(item.document).text == (
        "Please read the following text and answer the question below.\n\n<text>\nThe text.\n</text>\n\n"
        "What is the correct answer to this question: Who {answer}?\nChoices:\n(A) option A\n(B) option B\n"
        "(C) option C\n(D) option D\n\n"
        'Format your response as follows: "The correct answer is (insert answer here)".'
    )
    assert task.score(item, "The correct answer is (C)") == {"accuracy": 1.0}
    assert task.score(item, "C") == {"accuracy": 0.0}


def test_longbench_v2_with_chain_of_thought(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([{**LONGBENCH, "question": "Who?"}]))
    ((item,),) = load(load_task("longbench-v2:cot", tmp_path, letters=True))
    assert item.after.endswith("Let’s think step by step:") and item.form is None and item.max_new_tokens == 1024
    assert item.follow_up.count("{answer}") == 1 and "The text." not in item.follow_up
    assert item.follow_up_form.regex == "A|B|C|D"


# --- InfiniteBench --------------------------------------------------------------------------------------------------


def test_infinitebench(tmp_path):
    books = ("One book.", "Two.", "One book.")
    write(
        tmp_path / "longbook_qa_eng.jsonl",
        [{"id": n, "context": b, "input": f"Q{n}?", "answer": ["Ada", "Miss A"]} for n, b in enumerate(books)],
    )
    write(
        tmp_path / "longbook_choice_eng.jsonl",
        [
            {"id": 0, "context": "B", "input": "Q?", "answer": ["y"], "options": ["x", "y", "z", "w"]},
            {"id": 1, "context": "B", "input": "Q?", "answer": ["x", "C"], "options": ["x", "y", "x", "w"]},
        ],
    )
    task = load_task("infinitebench:qa", tmp_path)
    grouped = load(task)
    assert [[item.id for item in items] for items in grouped] == [["0", "2"], ["1"]]  # a novel is read once
    assert {item.document_id for item in grouped[0]} == {"0"}
    assert task.score(grouped[0][0], "it was Ada") == {"f1": pytest.approx(0.5)}
    task = load_task("infinitebench:mc", tmp_path, letters=True)
    ((first, second),) = load(task)
    assert (first.references, second.references) == (("B", "y"), ("C", "x")) and first.form.regex == "A|B|C|D"
    assert task.score(first, "B. y") == {"accuracy": 1.0} and task.score(first, "nothing") == {"accuracy": 0.0}
    assert "\nB. y\n" in first.after


def test_infinitebench_summaries(tmp_path):
    pytest.importorskip("rouge_score")
    write(tmp_path / "longbook_sum_eng.jsonl", [{"id": 0, "context": "B", "input": "", "answer": ["a cat", "a dog"]}])
    task = load_task("infinitebench:sum", tmp_path)
    ((item,),) = load(task)
    assert task.score(item, "a dog")["rougeLsum"] == 1.0
    assert item.prompt("B").text == "Summarize the following book.\n\nB"


def test_an_answer_that_is_no_option(tmp_path):
    row = {"id": 0, "context": "B", "input": "Q?", "answer": ["v"], "options": ["x", "y", "z", "w"]}
    write(tmp_path / "longbook_choice_eng.jsonl", [row])
    with pytest.raises(PromptError, match="row 1 .* not one of its options"):
        load(load_task("infinitebench:mc", tmp_path))


# --- dialogue -------------------------------------------------------------------------------------------------------


def test_dialogue(tmp_path):
    def turns(n, length):
        return [{"user": f"user {n} says {t}", "bot": f"bot {n} replies {t}"} for t in range(length)]

    rows = [{"task": "CM", "id": n, "history": turns(n, 1 + n % 3)} for n in range(12)]
    write(tmp_path / "mtbench101.jsonl", rows)
    task = load_task("dialogue", tmp_path, documents=2)
    first, second = load(task, context_tokens=90)
    assert len(first) == 4 and len({item.document for item in first}) == 1 and first[0].document != second[0].document
    assert count(first[0].document) <= 90
    for item in first:
        n, last = re.match(r"bot (\d+) replies (\d)", item.references[0]).groups()
        assert f"user {n} says 0" in item.document and f"user {n} says {last}" not in item.document
        assert item.after.endswith(f"USER: user {n} says {last}") and item.groups == {"ability": "CM"}
    assert task.score(first[0], first[0].references[0])["f1"] == 1.0
    assert load(task, context_tokens=90)[0] == first
    write(tmp_path / "mtbench101.jsonl", rows[:2])
    with pytest.raises(PromptError, match="with more than one turn"):
        load(task)


# --- made tasks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["needle", "facts"])
@pytest.mark.parametrize("tokens", [300, 5000])
def test_made_reports_have_the_wanted_length_and_the_facts(name, tokens):
    task = load_task(name, seed=3, documents=2)
    documents = load(task, tokens)
    assert len(documents) == 2 and documents[0][0].document != documents[1][0].document
    for items in documents:
        document = items[0].document
        assert 0.9 * tokens <= count(document) <= tokens
        for item in items:
            assert len(item.references) == (1 if name == "needle" else 3)
            for value in item.references:
                sentences = [s for s in re.split(r"(?<=\.)\s+", document) if value in s]
                assert any(re.match(r"\w+ \w+ ", s).group().strip() in item.query for s in sentences)
            assert task.score(item, " ".join(item.references)) == {"recall": 1.0, "all": 1.0}
            assert task.score(item, "nothing")["recall"] == 0.0
    assert load(task, tokens) == documents
    assert load(load_task(name, seed=4, documents=2), tokens) != documents


def test_facts_of_a_question_lie_apart():
    (items, *_) = load(load_task("facts"), 2000)
    for item in items:
        places = sorted(item.document.index(f" {value}.") for value in item.references)
        assert places[-1] - places[0] > len(item.document) / 3


# --- your own questions ---------------------------------------------------------------------------------------------


def test_own_questions(tmp_path):
    (tmp_path / "a.txt").write_text("The cat sat.")
    (tmp_path / "shared.txt").write_text("Shared text.")
    write(
        tmp_path / "mine.jsonl",
        [
            {"file": "a.txt", "question": "Who?", "answer": "the cat"},
            {"document": "Other.", "question": "What?", "answer": ["this", "that"]},
            {"file": "a.txt", "question": "Did it?", "answer": "yes"},
            {"question": "And?", "answer": "so"},
        ],
    )
    task = load_task(f"own:{tmp_path / 'mine.jsonl'}", tmp_path / "shared.txt")
    assert task.name == "own:mine"
    grouped = load(task)
    assert [[item.id for item in items] for items in grouped] == [["0", "2"], ["1"], ["3"]]
    assert grouped[0][0].document == "The cat sat." and grouped[2][0].document == "Shared text."
    assert task.score(grouped[0][0], "It was the cat") == {
        "f1": pytest.approx(0.5),
        "exact_match": 0.0,
        "contains": 1.0,
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "Q?", "document": "D"}', "question 1: expected"),
        ('{"question": "Q?", "document": "D", "answer": []}', "question 1: expected"),
        ('{"question": " ", "document": "D", "answer": "a"}', r"question 1: expected.*; found question = \" \", doc"),
        ('{"question": "Q?", "document": "D", "answer": 7}', "found question, document, answer = 7$"),
        ('{"question": "Q?", "answer": "a"}', "has no document"),
        ('{"question": "Q?", "answer": "a", "document": ""}', "has no document"),
        ('{"question": "Q?", "answer": "a", "file": "missing.txt"}', "missing.txt cannot be read"),
        ("{", "line 1, is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"question": ' + "7" * 5_000 + "}", "line 1, is not JSON"),
        ('{"question": "\\udc00?", "document": "D", "answer": "a"}', "line 1, holds half of a surrogate pair"),
        ("3", "expected a JSON object, found int"),
        ("[]", "mine.jsonl holds no row"),
    ],
)
def test_malformed_questions(tmp_path, line, said):
    (tmp_path / "mine.jsonl").write_text(line + "\n")
    with pytest.raises(PromptError, match=said):
        load(load_task(f"own:{tmp_path / 'mine.jsonl'}"))


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["leval:nothing", "infinitebench:zh", "needles", "own:", "longbench-v2:x"])
def test_unknown_tasks(name):
    with pytest.raises(ConfigurationError, match=r"there are|runs here"):
        load_task(name)


def test_a_task_at_a_length():
    planned = plan_task("facts@2048", context_tokens=512)
    assert (planned.label, planned.context_tokens) == ("facts@2048", 2048)
    assert plan_task("facts", context_tokens=512).context_tokens == 512
    with pytest.raises(ConfigurationError, match="length in tokens"):
        plan_task("facts@long")
    with pytest.raises(ConfigurationError, match="length in tokens"):
        plan_task("facts@\u00b2")  # a digit, but no number
    assert plan_task("own:me@work/mine.jsonl").label == "own:mine"
    assert plan_task("own:me@work/mine.jsonl@300").context_tokens == 300


def test_missing_data(tmp_path):
    with pytest.raises(PromptError, match=r"holds no data\.json.*--data"):
        load(load_task("longbench-v2", tmp_path))
    with pytest.raises(PromptError, match="does not exist"):
        find_rows(tmp_path / "nowhere", "x.jsonl", hub="")
    with pytest.raises(PromptError, match="is not on the hub"):
        load(load_task("dialogue"))
    write(tmp_path / "tpo.jsonl", [{"input": "x"}])
    with pytest.raises(PromptError, match="a row of leval:tpo lacks instructions, outputs"):
        load(load_task("leval:tpo", tmp_path))


# --- questions with annotated evidence ------------------------------------------------------------------------------


def evidence(tmp_path, questions, letters=False):
    write(tmp_path / "sets" / "tales.jsonl", [{"id": "tales-1", "document": "A long tale.", "questions": questions}])
    task = load_task("evidence:tales", tmp_path / "sets", letters=letters)
    (items,) = load(task)
    return task, items


def test_evidence_asks_for_few_words_if_the_right_answers_have_few(tmp_path):
    asked = {"question": "Who left?", "answers": ["Ada Holm", "Ada"], "evidence": "Ada Holm left."}
    task, (item,) = evidence(tmp_path, [asked])
    assert (task.name, task.metric, item.id, item.document_id) == ("evidence:tales", "f1", "0.0", "tales-1")
    assert item.query == "Who left?" and item.max_new_tokens == 40 and "few words" in item.after
    assert task.score(item, "It was Ada Holm") == {"f1": pytest.approx(2 / 3), "exact_match": 0.0, "contains": 1.0}
    task, (item,) = evidence(tmp_path, [asked | {"answers": [" ".join(["word"] * 13)]}])
    assert item.max_new_tokens == 96 and "sentences" in item.after


def test_evidence_with_choices_is_scored_by_the_letter(tmp_path):
    asked = {"question": "Who left?", "answers": ["Bo"], "choices": ["Ada", "Bo", "Cy"]}
    task, (item,) = evidence(tmp_path, [asked], letters=True)
    assert task.metric == "accuracy" and item.references == ("B",) and item.form.regex == "A|B|C"
    assert "\nA. Ada\nB. Bo\nC. Cy\n" in item.after and item.query == "Who left?"
    assert [task.score(item, answer)["accuracy"] for answer in ("B", "B. Bo", "A")] == [1, 1, 0]
    assert evidence(tmp_path, [asked])[1][0].form is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"question": "Who?", "answers": []}, "no right answer"),
        ({"question": "Who?", "answers": "Ada"}, "list of texts"),
        ({"question": "Who?", "answers": ["Di"], "choices": ["Ada", "Bo"]}, "no choice"),
        ({"question": "Who?"}, "lacks answers"),
    ],
)
def test_evidence_without_a_right_answer_is_refused(tmp_path, asked, said):
    with pytest.raises(PromptError, match=said):
        evidence(tmp_path, [asked])


def test_evidence_needs_files(tmp_path):
    with pytest.raises(ConfigurationError, match="--data"):
        load_task("evidence:tales")
    with pytest.raises(PromptError, match=r"holds no tales\.jsonl"):
        load(load_task("evidence:tales", tmp_path))
