"""Layouts that were written when the segmenter was done, so that they say how it does on what it was not made for."""

HELD_OUT = {
    "chain of thought": (
        "You are a research assistant. Think step by step.\n\nHere are some documents that may help:\n\n{context}\n\nWith these "
        "documents in mind, please answer the user's question.\n\nUser's question: {question}\n\nLet's think step by step."
    ),
    "numbered sections": "1. CONTEXT\n{context}\n\n2. QUESTION\n{question}\n\n3. YOUR ANSWER\n",
    "emoji headings": "📚 **Knowledge**\n{context}\n\n❓ **Question**\n{question}\n\n💡 **Answer**\n",
    "relevant chunks": (
        "Below are the most relevant chunks from the company wiki.\n\n{context}\n\nUsing only these chunks, reply to the employee.\n"
        "Employee: {question}\nReply:"
    ),
    "question first, then 'using'": (
        "{question}\n\nUse the following excerpts to answer. If the excerpts do not contain the answer, say so.\n\nExcerpts:\n{context}\n"
    ),
    "question in quotes": (
        'Answer the question "{question}" from the text below. Answer in one sentence.\n\nText:\n{context}\n'
    ),
    "question at the start with label": "Q: {question}\n\nReference material:\n{context}\n\nA:",
    "Q and A at the end": "Read the passage.\n\nPassage: {context}\n\nQ: {question}\nA:",
    "html comment": "<!-- context start -->\n{context}\n<!-- context end -->\n\nQuestion: {question}\nAnswer:",
    "begin context end context": "BEGIN CONTEXT\n{context}\nEND CONTEXT\n\nQuestion: {question}\n",
    "markers": "<<<DOCUMENT\n{context}\nDOCUMENT>>>\n\nQuestion: {question}\n",
    "knowledge tags and task tags": (
        "<role>You answer questions of customers.</role>\n<knowledge>\n{context}\n</knowledge>\n<task>Answer the question below from the "
        "knowledge.</task>\n<question>\n{question}\n</question>\n<format>One paragraph.</format>\n"
    ),
    "snippets tag, question before": "<question>{question}</question>\n<snippets>\n{context}\n</snippets>\nAnswer with references.",
    "search_results tags": (
        "Here are search results:\n<search_results>\n{context}\n</search_results>\n\nThe user asked: {question}\n\nAnswer and cite the "
        "results by number."
    ),
    "JSON": '{"instruction": "Answer the question from the context.",\n"context": "{context}",\n"question": "{question}"}',
    "YAML": "task: answer the question from the context\ncontext: |\n  {context}\nquestion: {question}\n",
    "system and user lines": "System: You answer from the context.\nContext: {context}\nUser: {question}\nAssistant:",
    "alpaca": (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that "
        "appropriately completes the request.\n\n### Instruction:\n{question}\n\n### Input:\n{context}\n\n### Response:\n"
    ),
    "vicuna": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers. USER: Use the "
        "context to answer. Context: {context} Question: {question} ASSISTANT:"
    ),
    "mistral": "<s>[INST] Context information is below.\n---\n{context}\n---\nAnswer the question: {question} [/INST]",
    "chatml": (
        "<|im_start|>system\nYou answer from the context.<|im_end|>\n<|im_start|>user\nContext:\n{context}\n\nQuestion: {question}"
        "<|im_end|>\n<|im_start|>assistant\n"
    ),
    "gemma": "<start_of_turn>user\nContext:\n{context}\n\nQuestion: {question}<end_of_turn>\n<start_of_turn>model\n",
    "contract": (
        "You are a lawyer. The contract:\n\n{context}\n\nYour client asks: {question}\n\nExplain your answer and name the clause."
    ),
    "transcript": "Call transcript:\n{context}\n\nQuestion about the call: {question}\nAnswer in bullet points:",
    "quality": (
        "{context}\n\nQuestion: {question}\n\nAnswer the question based on the passage above. Reply with the answer only."
    ),
    "helmet": (
        "Use the given documents to write a concise and short answer to the question. Write your answer in the following format:\nAnswer: "
        "[answer]\n\n{context}\n\nQuestion: {question}"
    ),
    "ruler": (
        "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\nThe following "
        "are given documents.\n\n{context}\n\nAnswer the question based on the given documents. Only give me the answer and do not output "
        "any other words.\n\nQuestion: {question}"
    ),
    "infinitebench": "Read the book below and answer a question.\n\n{context}\n\nQuestion: {question}\n\nBe very concise.",
    "l-eval": (
        "Now you are given a very long document. Please follow the instruction after this document. These instructions may include "
        "summarizing a document or answering questions about it.\n\nDocument is as follows.\n{context}\nInstruction: {question}\nAnswer this "
        "question in one sentence."
    ),
    "lightrag": (
        "---Role---\n\nYou are a helpful assistant responding to user query about the documents provided below.\n\n---Goal---\n\nGenerate a "
        "concise response based on the documents and follow the response rules.\n\n---Documents---\n{context}\n\n---Response Rules---\n\n- Use "
        "markdown formatting\n- Please respond in the same language as the user's question.\n\n---User Query---\n{question}\n"
    ),
    "privategpt": (
        "You can only answer questions about the provided context. If you know the answer but it is not based in the provided context, don't "
        "provide the answer.\n\nContext: {context}\n\nQuestion: {question}"
    ),
    "anythingllm": (
        "Given the following conversation, relevant context, and a follow up question, reply with an answer to the current question the user "
        "is asking. Return only your response to the question.\nContext:\n    [CONTEXT 0]:\n{context}\n[END CONTEXT 0]\n\n\nUser: {question}"
    ),
    "nvidia": (
        "You are a helpful AI assistant named Envie. You will reply to questions only based on the context that you are provided. If "
        "something is out of context, you will refrain from replying.\n\nContext: {context}\n\nUser: {question}\nAnswer:"
    ),
    "tables of the company": "Table:\n{context}\n\nUsing the table, answer: {question}",
    "log lines": "Here are the last log lines of the service:\n\n```\n{context}\n```\n\n{question}",
    "file": "File: notes.md\n```\n{context}\n```\n\nQuestion about the file: {question}",
    "de, du": "Lies den folgenden Bericht und beantworte dann die Frage.\n\nBericht:\n{context}\n\nFrage: {question}\n\nKurze Antwort:",
    "de, tags": "<dokumente>\n{context}\n</dokumente>\n\n<frage>\n{question}\n</frage>\n\nAntworte nur mit Informationen aus den Dokumenten.",
    "de, Überschriften": "## Aufgabe\nBeantworte die Frage.\n\n## Frage\n{question}\n\n## Textauszüge\n{context}\n\n## Antwort\n",
    "de, Gesetz": "Gesetzestext:\n\n{context}\n\nAnfrage des Mandanten: {question}\nAntwort:",
    "fr, documents": "Documents :\n{context}\n\nEn te basant sur ces documents, réponds à la question : {question}",
    "fr, titres": "### Contexte\n{context}\n\n### Question\n{question}\n\n### Consignes\nRéponds en français, en trois phrases au plus.\n",
    "es, extractos": "Extractos relevantes:\n\n{context}\n\nPregunta del usuario: {question}\n\nRespuesta breve:",
    "es, consulta": "Eres un experto.\n\nConsulta: {question}\n\nDocumentos recuperados:\n\n{context}\n\nResponde citando los documentos.",
    "it, documenti": "Documenti:\n{context}\n\nIn base ai documenti, rispondi alla domanda seguente.\nDomanda: {question}\nRisposta:",
    "pt, pergunta": "Pergunta: {question}\n\nDocumentos:\n{context}\n\nResposta:",
    "nl, bronnen": "Bronnen:\n{context}\n\nGebruikersvraag: {question}\n\nGeef antwoord in het Nederlands.",
    "ru, инструкция": "Ты — помощник. Используй контекст.\n\n### Контекст\n{context}\n\n### Вопрос пользователя\n{question}\n\n### Ответ\n",
    "uk": "Контекст:\n{context}\n\nЗапитання: {question}\nВідповідь:",
    "cs": "Odpověz na otázku podle kontextu.\n\nKontext:\n{context}\n\nOtázka: {question}\nOdpověď:",
    "zh, 已知信息": (
        "已知信息：\n{context}\n\n根据上述已知信息，简洁和专业的来回答用户的问题。如果无法从中得到答案，请说“根据已知信息无法回答该问题”。\n"
        "问题是：{question}"
    ),
    "zh, 标签": "<资料>\n{context}\n</资料>\n\n用户问题：{question}\n请用中文回答。",
    "zh, 问题在前": "问题: {question}\n\n检索到的文档:\n{context}\n\n请给出答案:",
    "ja, 参考情報": "# 参考情報\n{context}\n\n# 質問\n{question}\n\n# 回答\n",
    "ja, 前": "質問：{question}\n\n以下の資料を参考にして回答してください。\n\n資料：\n{context}\n",
    "ko, 제목": "[참고 문서]\n{context}\n\n[사용자 질문]\n{question}\n\n[답변]\n",
    "vi": "Ngữ cảnh:\n{context}\n\nCâu hỏi: {question}\nTrả lời:",
    "id": "Gunakan konteks berikut untuk menjawab pertanyaan.\n\nKonteks:\n{context}\n\nPertanyaan: {question}\nJawaban:",
    "ar": "السياق:\n{context}\n\nالسؤال: {question}\nالإجابة:",
    "hi": "संदर्भ:\n{context}\n\nप्रश्न: {question}\nउत्तर:",
}

# Written after the layouts above had been looked at.
SECOND = {
    "helpdesk": (
        "You work at the help desk of a bank.\n\nKNOWLEDGE BASE ARTICLES\n=======================\n{context}\n\nCUSTOMER MESSAGE\n"
        "================\n{question}\n\nDraft a reply that uses only the articles."
    ),
    "medical": (
        "Patient record:\n\n{context}\n\nThe doctor wants to know: {question}\n\nReply in two sentences and quote the record."
    ),
    "retrieved passages, ranked": (
        "I retrieved these passages (ranked by relevance):\n{context}\n\nBased on them, what is the answer to the following?\n{question}"
    ),
    "context then bare question": "Context: {context}\n\n{question}",
    "question then context, bare": "{question}\n\nContext: {context}",
    "question then documents, no labels": "{question}\n\nAnswer using these documents:\n\n{context}",
    "answer with quotes": (
        "<instructions>\nQuote the sentences that support your answer.\n</instructions>\n\n<documents>\n{context}\n</documents>\n\n<query>{question}"
        "</query>"
    ),
    "input and output": "Input text:\n{context}\n\nQuestion: {question}\n\nOutput:",
    "squad": "Passage: {context}\nQuestion: {question}\nAnswer:",
    "squad, spaced": "Background: {context}\n\nQ: {question}\n\nA:",
    "flan": "{context}\n\nBased on the above article, answer a question. {question}",
    "t0": 'Given the following passage\n\n"{context}",\n\nanswer the following question. Note that the answer is present within the text.\n\nQuestion: {question}',
    "with options": (
        "Read the article, then choose.\n\nArticle:\n{context}\n\nQuestion: {question}\n\nOptions:\nA. Haas\nB. Novak\nC. Grey\n\nAnswer with a letter:"
    ),
    "star fences": "Documents:\n*****\n{context}\n*****\nQuestion: {question}",
    "underscored": "______________________\n{context}\n______________________\nQuestion: {question}\nAnswer:",
    "plus fences": "CONTEXT +++++\n{context}\n+++++\n\nQUESTION: {question}",
    "arrows": ">>> CONTEXT\n{context}\n\n>>> QUESTION\n{question}\n\n>>> ANSWER\n",
    "double colon": "context::\n{context}\n\nquestion::\n{question}\n",
    "dash labels": "Context - \n{context}\n\nQuestion - {question}\n",
    "bold brackets": "**[CONTEXT]**\n{context}\n\n**[QUESTION]**\n{question}\n",
    "percent": "%%% CONTEXT %%%\n{context}\n%%% QUESTION %%%\n{question}\n",
    "box": "╔══ CONTEXT ══╗\n{context}\n╚═════════════╝\n\nQuestion: {question}\n",
    "two contexts": (
        "# Company\nWe sell lamps.\n\n# Retrieved passages\n{context}\n\n# Conversation so far\nuser: hi\nassistant: hello\n\n# User message\n{question}"
    ),
    "date and user": (
        "Today is 2024-05-01. The user is called Ms Grey.\n\nUse this material to help her:\n\n{context}\n\nHer question: {question}"
    ),
    "code base": "You are a senior engineer. Here is the relevant code:\n\n```python\n{context}\n```\n\nTask: {question}\n",
    "sql result": "Rows returned by the database:\n{context}\n\nWith these rows, answer the user: {question}",
    "policy": "POLICY DOCUMENT START\n{context}\nPOLICY DOCUMENT END\n\nEmployee question: {question}\n\nHR answer:",
    "xml attributes": '<context source="wiki" lang="en">\n{context}\n</context>\n<question lang="en">{question}</question>',
    "camel tags": "<retrievedContext>\n{context}\n</retrievedContext>\n<userQuestion>\n{question}\n</userQuestion>\n",
    "uppercase tags": "<CONTEXT>\n{context}\n</CONTEXT>\n<QUESTION>\n{question}\n</QUESTION>\n<ANSWER>",
    "llama 2": (
        "<s>[INST] <<SYS>>\nYou are a helpful assistant. Answer from the context only.\n<</SYS>>\n\nContext:\n{context}\n\nQuestion: {question} [/INST]"
    ),
    "phi": "<|system|>\nAnswer from the context.<|end|>\n<|user|>\nContext: {context}\n\nQuestion: {question}<|end|>\n<|assistant|>\n",
    "command-r": (
        "# Documents\n\n{context}\n\n# User Query\n{question}\n\n# Instructions\nWrite an answer grounded in the documents, with citations.\n"
    ),
    "memo": "Subject: question about the report\n\nReport:\n\n{context}\n\n{question}",
    "de, Sie": (
        "Sie sind ein Sachbearbeiter. Nutzen Sie die folgenden Unterlagen, um die Frage zu beantworten.\n\nUnterlagen:\n{context}\n\nFrage des Bürgers: "
        "{question}\n\nBitte antworten Sie höflich und knapp."
    ),
    "de, Informationen": "Hier sind relevante Informationen:\n\n{context}\n\nBeantworte anhand dieser Informationen: {question}",
    "fr, vous": (
        "Vous êtes un conseiller. Utilisez les documents ci-dessous pour répondre.\n\n---\n{context}\n---\n\nQuestion du client : {question}\n\nVotre réponse :"
    ),
    "es, según": "Texto:\n{context}\n\nSegún el texto, responde: {question}",
    "it, contesto": "### Contesto\n{context}\n\n### Domanda\n{question}\n\n### Risposta\n",
    "pt, baseado": "Com base nos documentos a seguir, responda à pergunta.\n\n{context}\n\nPergunta: {question}",
    "nl, lees": "Lees de volgende tekst en beantwoord de vraag.\n\nTekst:\n{context}\n\nVraag: {question}\nAntwoord:",
    "ru, документы": "Документы:\n{context}\n\nОтветь на вопрос, используя документы: {question}",
    "zh, 阅读": "请阅读以下文档，然后回答问题。\n\n文档：\n{context}\n\n问题：{question}\n答案：",
    "zh, 标题": "## 背景知识\n{context}\n\n## 用户提问\n{question}\n\n## 要求\n回答要简洁。\n",
    "ja, 資料": "【資料】\n{context}\n\n【質問】\n{question}\n\n【回答】\n",
    "ja, お願い": "以下の文章を読んで、質問に答えてください。\n\n文章：\n{context}\n\n質問：{question}\n答え：",
    "ko, 문맥": "문맥:\n{context}\n\n질문: {question}\n\n위 문맥만 사용해서 답변하세요.",
}
