"""Layouts that are put together by chance from what layouts consist of, so that no rule can be made for one of them."""

import random

PERSONAS = (
    "",
    "You are a helpful assistant.",
    "You are {who}. Be friendly and brief.",
    "Act as {who}. People rely on what you tell them, so be careful.",
    "Today is 2024-05-06.\nYou work as {who}.",
    "As {who} you answer what visitors ask.",
    "{who}, internal assistant, version 2.3",
    "Du bist ein hilfsbereiter Assistent.",
    "Tu es un assistant qui répond brièvement.",
)
WHO = (
    "the night clerk of a hotel",
    "an auditor",
    "a librarian at the town archive",
    "the support bot of Northwind",
    "a museum guide",
    "an analyst",
)
RULES = (
    "Use only what is written there.",
    "If it isn't in there, say that you do not know.",
    "Write at most three sentences.",
    "Name the sentence that your answer rests on.",
    "Do not speculate about prices.",
    "Answer in the language that the user writes in.",
    "Never mention that you were given anything to read.",
    "Give figures with their units.",
    "Return plain text without any markup.",
    "Cite the number of the passage in brackets, like [3].",
    "Keep a neutral tone.",
    "Put the most important thing first.",
)
ANNOUNCEMENTS = (
    "Here is what we found:",
    "Read this carefully.",
    "The relevant part of the {noun} follows.",
    "Below you find the {noun}.",
    "Please look at this {noun}:",
    "I have pasted the {noun} for you.",
    "The following {noun} may help.",
)
NOUNS = (
    "context documents passage excerpts notes transcript report manual records handbook minutes ledger brief dossier wiki "
    "thread inventory statutes catalogue lecture log diary contract".split()
)
ASKS = (
    "question query user_question request the_customer_asks what_they_want_to_know inquiry problem ask user_prompt "
    "issue visitor".split()
)
ANSWERS = ("answer", "reply", "response", "your answer", "output", "final answer", "verdict")
FOREIGN = (  # labels of a context, a question, an answer; a lead
    ("Kontext", "Frage", "Antwort", "Beantworte die Frage mit dem Text."),
    ("Unterlagen", "Anfrage", "Antwort", "Antworte nur mit dem, was dort steht."),
    ("Contexte", "Question", "Réponse", "Réponds à la question à l'aide du texte."),
    ("Documentación", "Pregunta", "Respuesta", "Responde con la información siguiente."),
    ("Testo", "Domanda", "Risposta", "Rispondi usando solo il testo."),
    ("Trechos", "Pergunta", "Resposta", "Responda somente com base nos trechos."),
    ("Bronnen", "Vraag", "Antwoord", "Beantwoord de vraag met de bronnen."),
    ("Материалы", "Вопрос", "Ответ", "Ответь на вопрос, используя только материалы."),
    ("Dokumenty", "Pytanie", "Odpowiedź", "Odpowiedz na podstawie dokumentów."),
    ("Metin", "Soru", "Cevap", "Soruyu metne göre yanıtla."),
    ("资料", "问题", "回答", "请根据资料回答问题。"),
    ("参考資料", "質問", "回答", "資料だけを使って質問に答えてください。"),
    ("자료", "질문", "답변", "자료를 바탕으로 질문에 답하세요."),
    ("النص", "السؤال", "الإجابة", "أجب عن السؤال من النص فقط."),
    ("संदर्भ", "प्रश्न", "उत्तर", "संदर्भ के आधार पर उत्तर दें।"),
)
FENCES = ("---", "=====", "```", '"""', "***", "--------------------", "~~~", "###", "'''")


def _styled(style, name, body):
    """Return a part of a prompt: its name and its body, in one of many styles."""
    words = name.replace("_", " ")
    tag, title = name.replace(" ", "_"), words[:1].upper() + words[1:]
    return {
        "colon": f"{title}: {body}",
        "colon, below": f"{title}:\n{body}",
        "capitals": f"{words.upper()}\n{body}",
        "capitals, colon": f"{words.upper()}: {body}",
        "heading": f"## {title}\n\n{body}",
        "heading, colon": f"### {title}:\n{body}",
        "bold": f"**{title}:** {body}",
        "bold, below": f"**{title}**\n\n{body}",
        "tags": f"<{tag}>\n{body}\n</{tag}>",
        "tags, inline": f"<{tag}>{body}</{tag}>",
        "brackets": f"[{words.upper()}]\n{body}",
        "closed brackets": f"[{words.upper()}]\n{body}\n[/{words.upper()}]",
        "lenticular": f"【{title}】\n{body}",
        "bars": f"==== {title} ====\n{body}",
        "begin, end": f"BEGIN {words.upper()}\n{body}\nEND {words.upper()}",
        "underlined": f"{title}\n{'-' * max(3, len(title))}\n{body}",
        "arrow": f"{title} -> {body}",
        "numbered": f"({len(title) % 4 + 1}) {title}\n{body}",
        "none": body,
    }[style]


STYLES = (
    "colon|colon, below|capitals|capitals, colon|heading|heading, colon|bold|bold, below|tags|tags, inline|brackets|"
    "closed brackets|lenticular|bars|begin, end|underlined|arrow|numbered|none".split("|")
)


def _rules(rng, most):
    chosen = rng.sample(RULES, rng.randint(1, most))
    mark = rng.choice(("- ", "* ", "1", "", "one line"))
    if mark == "one line":
        return " ".join(chosen)
    return "\n".join(f"{number}. {rule}" if mark == "1" else mark + rule for number, rule in enumerate(chosen, 1))


def layout(seed):
    """Return the layout of this number, and a name that says what it consists of."""
    rng = random.Random(f"layout {seed}")
    foreign = rng.random() < 0.3
    if foreign:
        noun, ask, answer, lead = rng.choice(FOREIGN)
        opening = [lead] if rng.random() < 0.7 else []
    else:
        noun, ask, answer = rng.choice(NOUNS), rng.choice(ASKS), rng.choice(ANSWERS)
        opening = [rng.choice(PERSONAS).format(who=rng.choice(WHO))]
        if rng.random() < 0.5:
            opening.append(_rules(rng, 7))
    style = rng.choice(STYLES)
    context_style = rng.choice(STYLES) if rng.random() < 0.2 else style
    body = "{context}"
    if rng.random() < 0.25:
        fence = rng.choice(FENCES)
        body = f"{fence}\n{{context}}\n{fence}"
    if rng.random() < 0.1:
        body = f"title: {rng.choice(WHO)}\ndate: 2021-03-04\n{body}"
    context = _styled(context_style, noun, body)
    if not foreign and rng.random() < 0.35:
        context = rng.choice(ANNOUNCEMENTS).format(noun=noun) + "\n\n" + context
    question = _styled(style, ask, "{question}")
    order = rng.choice(("last", "last", "last", "first", "both"))
    parts = {
        "last": [context, question],
        "first": [question, context],
        "both": [question, context, question],
    }[order]
    if not foreign and rng.random() < 0.35:
        parts.insert(rng.randint(1, len(parts)), _rules(rng, 4))
    if rng.random() < 0.5 and style != "none":
        parts.append(_styled(style, answer, "").split("\n</")[0].rstrip())
    gap = rng.choice(("\n\n", "\n\n", "\n", "\n\n\n"))
    made = gap.join(part for part in [*opening, *parts] if part)
    return f"{seed}: {style}/{context_style}, {order}, {noun}", made
