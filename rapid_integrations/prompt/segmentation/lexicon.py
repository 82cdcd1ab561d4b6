"""The phrases by which prompts announce their parts, and who speaks, by language: data, and what they show."""

from __future__ import annotations

import re

from rapid_integrations.prompt.segmentation.remembered import remembered
from rapid_integrations.prompt.segmentation.role_words import ROLES

STRONG_CONTEXT = re.compile(
    r"context|kontext|kontekst|document|dokument|documento|passage|pasaj|passag|source|fuente|fonte|quelle|bron|"
    r"excerpt|"
    r"snippet|chunk|retriev|reference|referenc|extrait|auszug|auszüge|fragment|trecho|estratto|brano|evidence|"
    r"knowledge|"
    r"search result|контекст|документ|фрагмент|источник|отрывок|bağlam|belge|kaynak|konteks|dokumen|πλαίσιο|سياق|"
    r"مستند|"
    r"הקשר|संदर्भ|上下文|资料|資料|文档|文檔|文献|参考|參考|背景|知识|材料|片段|检索|コンテキスト|文脈|文書|抜粋|"
    r"検索結果|"
    r"문맥|컨텍스트|맥락|문서|자료|참고|출처|지문|발췌|contexto|contesto|contexte|sammanhang",
    re.IGNORECASE,
)

SPEAKERS: dict[str, str] = {
    **dict.fromkeys(
        "user|human|customer|client|nutzer|benutzer|utilisateur|usuario|utente|usuário|gebruiker|пользователь|用户|"
        "用戶|"
        "ユーザー|사용자|q|input|user input|follow up input|follow-up input|eingabe|nutzereingabe|entrada|输入|"
        "用户输入|入力|입력".split("|"),
        "question",
    ),
    **dict.fromkeys(
        "ai|bot|assistant|a|ki|助手|アシスタント|어시스턴트|ассистент|assistent|asistente".split("|"), "answer"
    ),
    **dict.fromkeys("system|系统|システム".split("|"), "instruction"),
}

# Words that point at what follows; with a noun of CONTEXT close behind they announce it.
_AHEAD = (
    r"following|here (?:is|are)|below (?:is|are)|these|folgend\w*|nachfolgend\w*|nachstehend\w*|untenstehend\w*|"
    r"hier (?:ist|"
    r"sind)|voici|siguientes?|estos|estas|a continuación se|aquí (?:está|tienes|están)|seguent[ei]|ecco|questi|"
    r"queste|"
    r"seguintes?|estes|aqui est\w+|volgende|onderstaande|hier (?:is|zijn)|följande|nedanstående|følgende|"
    r"następując\w*|"
    r"poniższ\w*|oto|následující\w*|следующ\w*|нижеследующ\w*|приведённ\w*|приведенн\w*|вот|наступн\w*|aşağıdaki|"
    r"berikut|dưới đây|sau đây|alábbi|următo\w*|ακόλουθ\w*|παρακάτω|التالي\w*|הבא\w*|निम्नलिखित"
)
_AHEAD_UNSPACED = "以下|下面|下列|如下|下述|次の|下記|다음|아래"
_BELOW = (
    r"below|as follows|that follows?|unten|im folgenden|ci-dessous|suivante?s?|ci-après|a continuación|siguientes?|"
    r"abajo|di seguito|"
    r"qui sotto|seguent[ei]|abaixo|a seguir|seguintes?|hieronder|nedan|poniżej|níže|ниже|нижче|aşağıda\w*|di "
    r"bawah(?: ini)?|"
    r"berikut|dưới đây|sau đây|أدناه|التالي\w*|如下|以下|下"
)
BACKWARD = re.compile(
    r"(?<![^\W_])(?:above|previous|preceding|oben|obig\w*|vorstehend\w*|ci-dessus|précédent\w*|anterior\w*|de "
    r"arriba|sopra|"
    r"precedent\w*|acima|bovenstaand\w*|hierboven|выше\w*|powyższ\w*|powyżej|yukarıdaki|di atas|ovan\w*)(?![^\W_])"
    r"|上述|上面|以上|前述|上記|위의?|앞의",
    re.IGNORECASE,
)
_CONTEXT_WORD = ROLES["context"].pattern
_QUESTION_WORD = ROLES["question"].pattern
_ANNOUNCES_CONTEXT = re.compile(
    rf"(?:(?<![^\W_])(?:{_AHEAD})(?![^\W_])(?:(?!{_QUESTION_WORD})[^.!?:;\n]){{0,40}}?(?:{_CONTEXT_WORD}))"
    rf"|(?:(?:{_AHEAD_UNSPACED})(?:(?!{_QUESTION_WORD})[^。！？：；\n]){{0,14}}?(?:{_CONTEXT_WORD}))"
    rf"|(?:(?:{_CONTEXT_WORD})[^.!?:;\n]{{0,30}}?(?<![^\W_])(?:{_BELOW})(?![^\W_]))",
    re.IGNORECASE,
)


@remembered
def announces_context(piece: str) -> bool:
    """Whether a line or sentence says that a context is near: "Use the following text", "the documents below"."""
    return bool(_ANNOUNCES_CONTEXT.search(piece))


INTERROGATIVE = re.compile(
    r"(?:who|whom|whose|what|when|where|which|why|how|wer|wen|wem|wessen|was|wann|wo|woher|wohin|welche[rsmn]?|warum|wieso|"
    r"weshalb|wie|wieviele?|qui|que|quoi|quand|où|comment|combien|pourquoi|quel(?:le)?s?|qu'est|quiéne?s?|qué|cuándo|cuántos?|"
    r"dónde|cómo|cuále?s?|chi|che|cosa|quando|dove|come|perché|quale|quali|quant[oi]|quem|qual|quais|onde|como|wat|wanneer|"
    r"waar|welke?|waarom|hoe|hoeveel|кто|что|когда|где|почему|зачем|как|сколько|какой|какая|какие)(?!\w)|谁|誰|什么|何|哪|怎|"
    r"いつ|どこ|だれ|なぜ|누가|언제|어디|무엇|왜",
    re.IGNORECASE,
)
"""How a question may begin that has no question mark."""
