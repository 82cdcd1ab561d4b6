"""The words by which prompts name their parts, by language. Pure data and the patterns made of it.

Words are stems: "antwort" is also found in "Antworten". Those of scripts without spaces are found anywhere in a label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

CONTEXT = (
    # English
    "context document doc passage source article text excerpt snippet chunk reference material knowledge information "
    "info background evidence data transcript report content result file page note paper story book contract manual "
    "policy record paragraph section extract fact summary summaries website log codebase corpus literature news "
    "email code novel story table row record database "
    # German, French
    "kontext dokument textstelle textstück abschnitt auszug auszüge ausschnitt quelle wissen hintergrund daten "
    "bericht "
    "tabelle vertrag zitat artikel unterlage information textpassage fundstelle material protokoll handbuch buch "
    "inhalt "
    "contexte extrait passage source texte connaissance donnée rapport référence contenu fragment fiche "
    # Spanish, Italian, Portuguese
    "contexto documento fragmento fuente texto pasaje artículo articulo referencia conocimiento datos informe "
    "noticia "
    "contesto apuntes estratto brano brani fonte fonti testo conoscenza dati riferiment appunti informazion contenut "
    "trecho conteúdo conteudo conhecimento dados relatório relatorio informaç informac passagem passagens material "
    # Dutch, Swedish, Danish, Polish, Czech
    "bron bronnen tekst fragment passage document kennis gegeven achtergrond sammanhang källa dokument utdrag "
    "kontekst dokument źródł zrodl fragment tekst wiedz zdroj úryvek uryvek podklad "
    # Russian, Ukrainian, Turkish, Vietnamese, Indonesian, Hungarian, Romanian, Greek
    "контекст документ фрагмент источник текст отрывок материал данные статья стать сведени выдержк джерел уривок "
    "bağlam baglam belge kaynak metin bilgi parça "
    "konteks dokumen sumber teks szövegkörnyezet kontextus forrás dokumentum πλαίσιο έγγραφο κείμενο πηγ "
    # Arabic, Hebrew, Hindi, Persian
    "سياق السياق المستند مستند وثيقة الوثائق نص النص مصدر المصادر زمینه متن הקשר מסמך טקסט מקור संदर्भ दस्तावेज़ "
    "दस्तावेज "
    "प्रसंग"
)
CONTEXT_UNSPACED = (
    # Chinese, Japanese, Korean, Thai, Vietnamese
    "上下文 文字 语境 語境 资料 資料 文档 文檔 文件 文献 文獻 背景 参考 參考 材料 知识 知識 信息 資訊 内容 內容 "
    "片段 段落 文章 来源 來源 原文 文本 证据 证據 "
    "话题 表格 数据 检索结果 检索到 报告 合同 "
    "コンテキスト コンテクスト 文脈 文書 情報 抜粋 出典 ソース 本文 記事 検索結果 ドキュメント テキスト "
    "문맥 컨텍스트 맥락 문서 자료 참고 출처 본문 지문 배경 정보 내용 텍스트 기사 발췌 리포트 "
    "บริบท เอกสาร ข้อมูล"
)
QUESTION = (
    "question query prompt request inquiry message "
    "frage anfrage nachricht fragestellung nutzerfrage benutzerfrage question requête demande interrogation "
    "pregunta consulta interrogante domanda quesito richiesta interrogazione pergunta consulta questão questao "
    "vraag gebruikersvraag fråga spørgsmål spørsmål pytanie zapytanie otázka otazka dotaz "
    "вопрос запрос питання запитання soru sorgu pertanyaan kérdés întrebare intrebare ερώτηση ερώτημα "
    "سؤال السؤال استفسار پرسش שאלה प्रश्न सवाल"
)
QUESTION_UNSPACED = "问题 問題 提问 提問 查询 查詢 疑问 质问 質問 問い クエリ 質疑 질문 질의 문의 คำถาม câu hỏi"
ANSWER = (
    "thought reasoning explanation rationale verdict answer respond rispond "
    "beantwort répond отвеч ответь response reply completion output assistant solution "
    "antwort lösung antwortvorschlag réponse reponse "
    "respuesta contestación risposta resposta antwoord svar odpowiedź odpowiedz odpověď odpoved ответ відповідь "
    "cevap "
    "yanıt yanit jawaban válasz răspuns raspuns απάντηση إجابة الإجابة الجواب جواب پاسخ תשובה उत्तर जवाब"
)
ANSWER_UNSPACED = "回答 答案 答复 解答 回复 答え 応答 답변 대답 응답 정답 답 คำตอบ trả lời"
INSTRUCTION = (
    "option choice opciones antwortmöglichkeiten auswahl instruction rule guideline requirement constraint task "
    "format note notes important role goal objective tone style "
    "persona policy steps step directive output reminder warning aufgabe anweisung regel vorgabe hinweis wichtig "
    "consigne tarea compito "
    "règle "
    "instrucc instruccion regla nota importante istruzion regol instruç instruc regra requisito aanwijzing "
    "instructie "
    "regel instruktion инструкц правил требован важно задач talimat kural petunjuk aturan تعليمات קווים निर्देश"
)
INSTRUCTION_UNSPACED = (
    "选项 選択肢 선택지 指令 要求 规则 規則 说明 說明 注意 任务 任務 指示 ルール 注意事項 条件 지시 규칙 주의 지침 요구"
)
HISTORY = (
    "history conversation chat memory dialog turn gesprächsverlauf verlauf chatverlauf historique historial "
    "cronologia "
    "histórico historico geschiedenis история переписк historia geçmiş riwayat"
)
HISTORY_UNSPACED = "历史 歷史 对话记录 聊天记录 履歴 会話 대화 기록"
EXAMPLE = "example examples beispiel exemple ejemplo esempio exemplo voorbeeld пример örnek contoh"
EXAMPLE_UNSPACED = "示例 例子 样例 例 예시"

# German, Dutch and Scandinavian words end in their head: "Nutzerfrage", "Textauszug", "dokumentfragmenten".
_COMPOUNDED = (
    "frage anfrage vraag fråga kontext context auszug auszüge quelle wissen dokument document fragment bron bronnen "
    "tekst "
    "text abschnitt ausschnitt information gegeven antwort antwoord svar regel anweisung verlauf"
)
_LETTER = r"[^\W\d_]"


def _pattern(stems: str, unspaced: str) -> re.Pattern[str]:
    """Return a pattern for a word that begins with one of `stems` (a stem of one letter: the whole word)."""
    words = sorted(set(stems.split()), key=len, reverse=True)
    long = "|".join(re.escape(word) for word in words if len(word) > 3)
    short = "|".join(re.escape(word) for word in words if len(word) <= 3) or "(?!)"
    anywhere = "|".join(re.escape(word) for word in sorted(set(unspaced.split()), key=len, reverse=True))
    ends = "|".join(word for word in _COMPOUNDED.split() if word in words) or "(?!)"
    return re.compile(
        rf"(?<![^\W_])(?:(?:{long}){_LETTER}{{0,12}}|{_LETTER}{{2,12}}(?:{ends}){_LETTER}{{0,3}}|"
        rf"(?:{short})s?)(?![^\W_])"
        rf"|{anywhere}",
        re.IGNORECASE,
    )


_STEMS = {
    "question": (QUESTION, QUESTION_UNSPACED),
    "context": (CONTEXT, CONTEXT_UNSPACED),
    "answer": (ANSWER, ANSWER_UNSPACED),
    "instruction": (INSTRUCTION, INSTRUCTION_UNSPACED),
    "history": (HISTORY, HISTORY_UNSPACED),
    "example": (EXAMPLE, EXAMPLE_UNSPACED),
}


class _Roles(Mapping[str, re.Pattern[str]]):
    """The pattern of each role's words. They are long, so each is compiled when it is first needed."""

    def __init__(self) -> None:
        self._compiled: dict[str, re.Pattern[str]] = {}

    def __getitem__(self, role: str) -> re.Pattern[str]:
        if role not in self._compiled:
            self._compiled[role] = _pattern(*_STEMS[role])
        return self._compiled[role]

    def __iter__(self) -> Iterator[str]:
        return iter(_STEMS)

    def __len__(self) -> int:
        return len(_STEMS)


ROLES: Mapping[str, re.Pattern[str]] = _Roles()
