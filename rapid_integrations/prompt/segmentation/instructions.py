"""Whether a piece of a prompt tells the model what to do, rather than what is so. Pure.

Used at the edges of a context, where the answer may err to either side at little cost: what is taken for instruction
stays with both readers.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rapid_integrations.prompt.segmentation.remembered import remembered

_BEGINNING = 300  # characters
_SAMPLE = 10_000  # characters that a long text is judged by
_SAMPLES = 32  # long texts whose judgement is kept for the next question about them

# Words that prompts are about, and documents seldom. One alone says little.
_META = re.compile(
    r"(?<![^\W_])(?:answer\w*|respon[ds]\w*|repl(?:y|ies)|question\w*|quer(?:y|ies)|context\w*|cit(?:e|es|ation|"
    r"ations|ing)|"
    r"sources?|assistant|concise\w*|briefly|sentences?|json|markdown|hallucinat\w*|make (?:up|sure)|prior knowledge|"
    r"don'?t know|do not know|i don'?t|step by step|language|format\w*|helpful|provided|given|passages?|documents?|"
    r"antwort\w*|beantwort\w*|fragen?|kontext\w*|quellen?|weißt|knapp|sätze\w*|erfinde\w*|ausschließlich|"
    r"répon\w*|repon\w*|questions?|contexte|invente\w*|uniquement|concis\w*|phrases?|"
    r"respond\w*|respuesta\w*|preguntas?|contexto|fuentes?|invent\w*|únicamente|oraciones|"
    r"rispond\w*|rispost\w*|domand\w*|contesto|fonti|inventare|esclusivamente|"
    r"respost\w*|perguntas?|fontes?|apenas|frases|"
    r"antwoord\w*|beantwoord\w*|vra(?:ag|gen)|bronn?en|verzin\w*|zinnen|"
    r"ответ\w*|отвеч\w*|вопрос\w*|контекст\w*|источник\w*|выдум\w*|кратко|"
    r"відпов\w*|питанн\w*|odpowied\w*|odpowiad\w*|pytani\w*|cevap\w*|yanıt\w*|soru\w*|bağlam\w*|jawab\w*|"
    r"pertanyaan\w*|"
    r"konteks|svara?\w*|fråg\w*|odpov\w*|otázk\w*)(?![^\W_])"
    r"|回答|作答|问题|問題|上下文|资料|参考|引用|编造|简洁|质問|質問|答え|コンテキスト|文脈|簡潔|出典|답변|대답|"
    r"질문|문맥|컨텍스트|출처",
    re.IGNORECASE,
)
# How an instruction begins: an imperative, or the model addressed.
_BEFORE_START = re.compile(
    r"(?:[^\w\s]{1,3}+[ \t]*+|\d{1,3}[.)、．][ \t]*+|[a-zA-Z][.)][ \t]++)*+"
    r"(?:(?:please|bitte|por favor|per favore|alstublieft|пожалуйста|s'il (?:te|vous) plaît|veuillez)[ ,]+)?"
    r"(?:(?:now|then|also|finally|first|next|remember|important|note)[:,]? (?:to )?)?",
    re.IGNORECASE,
)
_IMPERATIVES = (
    "answer|respond|reply|use|using|do not|don'?t|never|always|make sure|ensure|avoid|keep|return|write|provide|"
    "include|give|"
    "cite|quote|only|base|based on|given|read|consider|think|follow|output|explain|say|state|refer|if you|if the|if "
    "no|if it|"
    "if there|if none|if unsure|if not|if any|when you|when the|when asked|when answering|when referencing|you|"
    "you're|your|"
    "i want you|let'?s|act as|pretend|begin|be concise|be brief|be specific|be precise|be polite|be as|be factual|"
    "be very|limit|"
    "rank|score|grade|judge|evaluate|classify|draft|compose|prepare|suggest|describe|compare|justify|support|name|show|mark|put|add|put|highlight|"
    "list|extract|identify|generate|create|solve|check|choose|select|decide|determine|call|mention|start|end|remain|"
    "stay|treat|"
    "prefer|format|match|respect|stick|ask|offer|refuse|ignore|report|prioriti[sz]e|maintain|summari[sz]e|find|"
    "antworte\\w*|beantworte\\w*|verwende\\w*|nutze\\w*|benutze\\w*|du bist|sie sind|du musst|du sollst|du darfst|"
    "wenn du|wenn sie|"
    "wenn die|wenn der|wenn das|falls|gib|geben sie|schreib\\w*|zitiere\\w*|nenne\\w*|erfinde\\w*|halte|stütze|"
    "beziehe|lies|"
    "basierend|auf basis|auf grundlage|nur|keine|vermeide|erkläre|achte|füge|"
    "répon\\w+|utilise\\w*|n'?utilise\\w*|n'?invente\\w*|n'?ajoute\\w*|ne \\w+ pas|ne \\w+ jamais|ne \\w+ que|tu es|"
    "vous êtes|"
    "tu dois|tu peux|vous devez|vous pouvez|si tu|si vous|si la|si le|si l'|cite\\w*|donne\\w*|en te \\w+|en vous "
    "\\w+|en utilisant|"
    "à partir|sois|soyez|écris\\w*|indique\\w*|base-toi|basez-vous|limite|"
    "respond\\w+|contesta\\w*|usa\\w*|utiliza\\w*|utilice|no inventes|no uses|no utilices|no respondas|no invente|"
    "no use|eres|"
    "debes|si no|cita\\w*|proporcion\\w*|basándo\\w*|básate|solo|sé conciso|sé breve|genera|escrib\\w*|indica\\w*|"
    "rispond\\w+|utilizza\\w*|non inventare|non usare|non aggiungere|non rispondere|sei un\\w*|devi|se non|se la|se "
    "il|se l'|"
    "basando\\w*|basa\\w*|fornisci|sii|scrivi|responda|utilize|não invente|não use|não responda|nao invente|nao use|"
    "você é|você deve|"
    "voce e|se não|se nao|se a|se o|se você|baseado|com base|baseie|seja|forneça|escreva|"
    "beantwoord|antwoord|gebruik|geef|je bent|u bent|als je|als u|als het|verzin|citeer|wees|vermeld|schrijf|baseer|"
    "reageer|"
    "отвечай\\w*|ответь\\w*|используй\\w*|не выдум\\w+|не придум\\w+|не использ\\w+|не добавл\\w+|ты|вы|если|"
    "цитируй\\w*|дай\\w*|"
    "опирайся|основываясь|на основ\\w+|будь\\w*|укажи\\w*|пиши\\w*|напиши\\w*|только|"
    "with these|with this|with the|from the|from these|according to|in light of|on the basis|laut|gemäß|anhand|"
    "selon|según|secondo|"
    "in base|segundo|de acordo|volgens|op basis|согласно|zgodnie|odpowiedz|użyj|jesteś|jeśli|nie wymyślaj|nie "
    "używaj|na podstawie|cevapla\\w*|yanıtla\\w*|kullan\\w*|sen|eğer|jawab\\w*|gunakan|"
    "anda adalah|jika|jangan|svara|använd|du är|om du|відповід\\w+|використ\\w+|якщо|odpověz|použij|jsi"
)
_UNSPACED_IMPERATIVES = re.compile(
    r"(?:现在)?(?:请|如果|若|你是|您是|不要|不得|禁止|必须|务必|根据|基于|使用|只|仅|回答|引用|作为|确保|始终|避免|"
    r"输出|"
    r"あなたは|以下の|次の|回答は|もし|答え|わからな|日本語で|당신은|너는|만약|모르면|답변은|다음|아래|반드시|절대)"
)


def _by_letter(alternatives: str) -> dict[str, re.Pattern[str]]:
    """Return the alternatives as patterns by their first letter: one pattern of them all is ten times as slow."""
    by_letter: dict[str, list[str]] = {}
    for alternative in alternatives.split("|"):
        by_letter.setdefault(alternative[0], []).append(alternative)
    return {letter: re.compile(rf"(?:{'|'.join(each)})(?![^\W_]|[ \t]?[:：])") for letter, each in by_letter.items()}


_STARTS = _by_letter(_IMPERATIVES)


def _starts(piece: str) -> bool:
    """Whether a piece begins with an imperative, or addresses the model."""
    before = _BEFORE_START.match(piece)
    body = piece[before.end() if before else 0 :][:80].lower()
    pattern = _STARTS.get(body[:1])
    return bool(pattern and pattern.match(body)) or bool(_UNSPACED_IMPERATIVES.match(body))


# How CJK instructions end.
_ENDS = re.compile(
    r"(?:ください|下さい|しなさい|すること|こと|세요|십시오|시오|하라|할 것|해줘|주세요)[。.!！]?\s*[:：]?\s*$"
)
_LABELLED = re.compile(r"^\W*[\w ]{1,30}[:：]", re.MULTILINE)  # "Answer: ..." belongs to whatever it stands in
_SECOND_PERSON = re.compile(
    r"(?<![^\W_])(?:you|your|du|dir|dich|dein\w*|ihnen|vous|votre|toi|ton|usted|tú|tu|tus|você|voi|jij|jou|jouw|ты|тебе|тебя|вы|"
    r"вам|sana|sen|anda)(?![^\W_])|你|您|あなた|당신",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\W*[\w ]{1,30}[:：][ \t]*[\[<{(][^\n]{0,80}[\]>})]\W*")
_CODE = re.compile(r"^\"{3}|^'{3}|^return [^A-Z]{0,30}$|[;{}=]|\w\(|:\s*$")
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*|\n")
_FIRST_PERSON = re.compile(
    r"(?<![^\W_])(?:i|i'm|i've|i'd|my|me|ich|mein\w*|mir|mich|je|j'ai|mon|ma|mes|yo|mi|mis|io|mio|mia|eu|meu|minha|"
    r"ik|mijn|я|мой|"
    r"моя|мне|меня|у меня)(?![^\W_])|我(?!们)|私|僕|저는|제가|나는",
    re.IGNORECASE,
)
WHOLE_TEXT = re.compile(
    r"(?<![^\W_])(?:summari[sz]\w*|summary|tl;?dr|translat\w*|rewrit\w*|re-write|proofread\w*|paraphras\w*|"
    r"rephras\w*|reword\w*|"
    r"shorten|polish|convert|reformat|refactor|transcribe|correct (?:the|this|all|my|any)|fix (?:the|this|all|my|"
    r"any)|edit (?:the|"
    r"this|my)|improve (?:the|this|my)|zusammenfass\w*|fass\w* .{0,40}zusammen|übersetz\w*|korrigier\w*|"
    r"umformulier\w*|überarbeite\w*|"
    r"formulier\w*|résum\w*|resum\w*|tradui\w*|reformul\w*|corrig\w*|réécri\w*|traduc\w*|traduz\w*|reescrib\w*|"
    r"reescrev\w*|"
    r"riassum\w*|tradurre|riscriv\w*|samenvat\w*|vat .{0,40}samen|vertaal\w*|herschrijf\w*|переведи\w*|перескаж\w*|"
    r"резюмир\w*|"
    r"перепиш\w*|исправ\w*|сократи\w*|streszcz\w*|przetłumacz\w*|özetle\w*|çevir\w*|ringkas\w*|terjemahkan|"
    r"sammanfatta\w*|översätt\w*)"
    r"(?![^\W_])|总结|概括|翻译|改写|润色|摘要|要約|翻訳|書き直|校正|요약|번역|다듬",
    re.IGNORECASE,
)


@remembered
def reads_as_instruction(piece: str) -> bool:
    """Whether a line or short paragraph instructs: it begins as one does, and names what instructions are about."""
    body = piece.strip()
    if not body:
        return False
    words = {match[0].casefold() for match in _META.finditer(body[:2000])}
    starts = _starts(body) or bool(_ENDS.search(body[-40:]))
    return (starts and len(words) >= 1) or (len(words) >= 3 and len(body) <= 600)


def names_the_task(piece: str) -> bool:
    """Whether a piece names something that instructions are about: an answer, a question, a context."""
    return bool(_META.search(piece))


@remembered
def addresses_somebody(piece: str) -> bool:
    """Whether a piece speaks to its reader."""
    return bool(_SECOND_PERSON.search(piece))


def is_a_placeholder(line: str) -> bool:
    """Whether a line shows the form of an answer: "Answer: [your answer]"."""
    return bool(_PLACEHOLDER.fullmatch(line.strip()))


def speaks_of_the_task(piece: str) -> bool:
    """Whether a short piece without figures names two things that instructions are about."""
    body = piece.strip()
    if "<" in body or _LABELLED.search(body):
        return False
    words = {match[0].casefold() for match in _META.finditer(body)}
    return len(words) >= 2 and len(body) <= 250 and not any(character.isdigit() for character in body)


@remembered
def begins_as_instruction(piece: str) -> bool:
    """Whether a line begins as an instruction does, whatever it is about."""
    return _starts(piece.strip()) or bool(_ENDS.search(piece.strip()[-40:]))


def instruction_share(text: str) -> float:
    """Return which share of the sentences and lines of `text` begin as instructions do, in [0, 1]."""
    return _instruction_share(text[:_SAMPLE])


@lru_cache(maxsize=_SAMPLES)
def _instruction_share(sample: str) -> float:
    sentences = [part.strip() for part in _SENTENCE.findall(sample) if part.strip()]
    told = sum(1 for sentence in sentences if len(sentence) > 3 and _starts(sentence) and not _CODE.search(sentence))
    return told / max(1, len(sentences))


def tells_of_oneself(text: str) -> bool:
    """Whether somebody writes of themselves: a long question rather than a document."""
    sample = text[:_SAMPLE]
    return _first_persons(sample) > len(sample) / 250


@lru_cache(maxsize=_SAMPLES)
def _first_persons(sample: str) -> int:
    return len(_FIRST_PERSON.findall(sample))


def tells_of_the_writer(introduction: str) -> bool:
    """Whether somebody introduces a text by what is the matter with them: "I must write to a customer, and I ..."."""
    return _first_persons(introduction[-_SAMPLE:]) >= 2


def is_of_one_writer(query: str, body: str) -> bool:
    """Whether who asks also wrote the text: both are in the first person."""
    return bool(_FIRST_PERSON.search(query)) and bool(_FIRST_PERSON.search(body[:_BEGINNING]))


def needs_the_whole_text(request: str) -> bool:
    """Whether a request is about all of a text (translate, summarise, correct it): nothing can be left out of it."""
    return bool(WHOLE_TEXT.search(request[:400]))
