"""Layouts of prompts in the wild, in our words: frameworks' defaults, tutorials, applications, benchmarks, languages.

{context} and {question} stand for what a program fills in; the rest is instruction, label or ornament.
"""

RULES = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
    "question. If you don't know the answer, just say that you don't know. Use three sentences maximum and keep the "
    "answer concise."
)

ENGLISH = {
    "hub rag-prompt": RULES + "\nQuestion: {question} \nContext: {context} \nAnswer:",
    "agentic rag": RULES + "\nQuestion: {question} \nContext: {context}",
    "only the following": "Answer the question based only on the following context:\n{context}\n\nQuestion: {question}",
    "only the following, spaced": "Answer the question based only on the following context:\n\n{context}\n\nQuestion: {question}\n",
    "question at the end": (
        "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say that "
        "you don't know, don't try to make up an answer.\n\n{context}\n\nQuestion: {question}\nHelpful Answer:"
    ),
    "portion": (
        "Use the following portion of a long document to see if any of the text is relevant to answer the question.\n"
        "Return any relevant text verbatim.\n{context}\nQuestion: {question}\nRelevant text, if any:"
    ),
    "quoted": (
        "Given the following question and context, return YES if the context is relevant to the question and NO if it "
        "isn't.\n\n> Question: {question}\n> Context:\n>>>\n{context}\n>>>\n> Relevant (YES / NO):"
    ),
    "text qa": (
        "Context information is below.\n---------------------\n{context}\n---------------------\nGiven the context "
        "information and not prior knowledge, answer the query.\nQuery: {question}\nAnswer: "
    ),
    "tree summarize": (
        "Context information from multiple sources is below.\n---------------------\n{context}\n---------------------\nGiven "
        "the information from multiple sources and not prior knowledge, answer the query.\nQuery: {question}\nAnswer: "
    ),
    "refine": (
        "The original query is as follows: {question}\nWe have provided an existing answer: It is unknown.\nWe have the "
        "opportunity to refine the existing answer (only if needed) with some more context below.\n------------\n{context}\n"
        "------------\nGiven the new context, refine the original answer to better answer the query. If the context isn't "
        "useful, return the original answer.\nRefined Answer: "
    ),
    "chat refine": (
        "You are an expert Q&A system that strictly operates in two modes when refining existing answers:\n1. **Rewrite** an "
        "original answer using the new context.\n2. **Repeat** the original answer if the new context isn't useful.\nNever "
        "reference the original answer or context directly in your answer.\nWhen in doubt, just repeat the original answer.\n"
        "New Context: {context}\nQuery: {question}\nOriginal Answer: It is unknown.\nNew Answer: "
    ),
    "citation": (
        "Please provide an answer based solely on the provided sources. When referencing information from a source, cite the "
        "appropriate source(s) using their corresponding numbers. For example:\nSource 1:\nThe sky is red in the evening and "
        "blue in the morning.\nSource 2:\nWater is wet when the sky is red.\nQuery: When is water wet?\nAnswer: Water will be "
        "wet when the sky is red [2], which occurs in the evening [1].\nNow it's your turn. Below are several numbered sources "
        "of information:\n------\n{context}\n------\nQuery: {question}\nAnswer: "
    ),
    "map rerank": (
        "Use the following pieces of context to answer the question at the end. In addition to giving an answer, also return a "
        "score.\n\nExample #1\n\nContext:\n---------\nApples are red\n---------\nQuestion: what color are apples?\nHelpful "
        "Answer: red\nScore: 100\n\nExample #2\n\nContext:\n---------\nPears are either red or orange\n---------\nQuestion: what "
        "color are apples?\nHelpful Answer: This document does not answer the question\nScore: 0\n\nBegin!\n\nContext:\n"
        "---------\n{context}\n---------\nQuestion: {question}\nHelpful Answer:"
    ),
    "combine with sources": (
        "Given the following extracted parts of a long document and a question, create a final answer with references "
        "(\"SOURCES\").\nIf you don't know the answer, just say that you don't know.\n\nQUESTION: Which law governs the "
        "contract?\n=========\nContent: This Agreement is governed by English law.\nSource: 28-pl\n=========\nFINAL ANSWER: "
        "English law.\nSOURCES: 28-pl\n\nQUESTION: {question}\n=========\n{context}\n=========\nFINAL ANSWER:"
    ),
    "condense plus context": (
        "\n  The following is a friendly conversation between a user and an AI assistant.\n  The assistant is talkative and "
        "provides lots of specific details from its context.\n  If the assistant does not know the answer to a question, it "
        "truthfully says it\n  does not know.\n\n  Here are the relevant documents for the context:\n\n  {context}\n\n  "
        "Instruction: Based on the above documents, provide a detailed answer for the user question below.\n  Answer \"don't "
        'know" if not present in the document.\n\n  Question: {question}\n  '
    ),
    "pixegami": (
        "Answer the question based only on the following context:\n\n{context}\n\n---\n\nAnswer the question based on the above "
        "context: {question}\n"
    ),
    "sources first": (
        "Answer the question based on the following context. If the context is relevant, mention which sources you used:\n"
        "{context}\n\nQuestion: {question}\n"
    ),
    "rules and labels": (
        "You are a helpful assistant that answers questions using the provided context.\n\nUse the following rules:\n- ONLY use "
        "the context to answer the question.\n- If the answer is not in the context, say so.\n- Be concise and factual.\n\n"
        "Context:\n{context}\n\nQuestion:\n{question}\n\nAnswer:\n"
    ),
    "document, question, instructions": (
        "You are an assistant. You have the following information:\nDOCUMENT:\n{context}\n--\nQUESTION:\n{question}\n--\n"
        "INSTRUCTIONS:\nAnswer the users QUESTION using the DOCUMENT text above.\nKeep your answer grounded in the facts of the "
        "DOCUMENT.\n"
    ),
    "indented": (
        "\n            Use the context to answer.\n            If it is not there, say that you don't know.\n\n            "
        "Context:\n            {context}\n\n            Question: {question}\n\n            Answer:\n            "
    ),
    "indented, question first": (
        "\n        <s> [INST] You are an assistant for answering questions. Use the pieces of context to answer.\n        Be "
        "concise. [/INST] </s>\n        [INST]Question: {question}\n        Context: {context}\n        Answer: [/INST]\n        "
    ),
    "llama 3 tokens": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|> You are an assistant for question-answering tasks. Use the "
        "following pieces of retrieved context to answer the question. If you don't know the answer, just say so. "
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\nQuestion: {question}\nContext: {context}\nAnswer: "
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
    ),
    "tags": "Use the context.\n<context>\n{context}\n</context>\n\n{question}",
    "tags and mention": (
        "Use the following context as your learned knowledge, inside <context></context> XML tags.\n<context>\n{context}\n"
        "</context>\n\nWhen answer to user:\n- If you don't know, just say that you don't know.\n- If you don't know when you are "
        "not sure, ask for clarification.\nAvoid mentioning that you obtained the information from the context.\nAnd answer "
        "according to the language of the user's question.\n\nGiven the context information, answer the query.\nQuery: {question}"
    ),
    "query and context tags": (
        "For the users query:\n<query>\n{question}\n</query>\n\nAnd context below\n\n<context>\n{context}\n</context>\n\nAnswer the "
        "query using ONLY the context provided. Be very direct and straight forward with your answer.\n"
    ),
    "task, guidelines, tags": (
        "### Task:\nRespond to the user query using the provided context, incorporating inline citations in the format [id] "
        "**only when the <source> tag includes an explicit id attribute**.\n\n### Guidelines:\n- If you don't know the answer, "
        "clearly state that.\n- Respond in the same language as the user's query.\n- Do not use XML tags in your response.\n\n"
        "### Output:\nProvide a clear and direct response to the user's query.\n\n<context>\n{context}\n</context>\n\n"
        "<user_query>\n{question}\n</user_query>\n"
    ),
    "data tags with mentions": (
        "<Data>\n{context}\n</Data>\n\nThink about the flow:\n1. Determine if the question is related to what is in the <Data> "
        "</Data> tag.\n2. If it is not relevant, you simply refuse to answer the question.\n\nQuestion: {question}\n\nAnswer the "
        "request:\n- Keep your answer as described in <Data></Data>.\n"
    ),
    "anthropic": (
        "I'm going to give you a document. Then I'm going to ask you a question about it.\n\nHere is the document:\n<document>\n"
        "{context}\n</document>\n\nHere is the first question: {question}"
    ),
    "documents in documents": (
        '<documents>\n<document index="1">\n<source>report.pdf</source>\n<document_content>\n{context}\n</document_content>\n'
        "</document>\n</documents>\n\nFind the quotes that matter, then answer the question.\n\n<question>{question}</question>"
    ),
    "dspy": (
        "Your input fields are:\n1. `context` (str)\n2. `question` (str)\nYour output fields are:\n1. `answer` (str)\n\n[[ ## context "
        "## ]]\n{context}\n\n[[ ## question ## ]]\n{question}\n\nRespond with the corresponding output fields, starting with the "
        "field `[[ ## answer ## ]]`."
    ),
    "brackets": "[CONTEXT]\n{context}\n[/CONTEXT]\n\n[QUESTION]\n{question}\n[/QUESTION]\n\nAnswer from the context only.",
    "bracket labels": "Answer from the documents.\n\n[Documents]\n{context}\n\n[Question]\n{question}\n\n[Answer]\n",
    "begin and end": (
        "--- BEGIN DOCUMENT ---\n{context}\n--- END DOCUMENT ---\n\nUsing the document above, answer this question: {question}\n"
    ),
    "headings": (
        "# Role\nYou are a careful analyst.\n\n# Task\nAnswer the question from the context.\n\n# Context\n{context}\n\n# Question\n"
        "{question}\n\n# Output format\nReturn a short answer and cite the context.\n"
    ),
    "headings, question first": (
        "## Question:\n{question}\n\n## Retrieved documents:\n{context}\n\n## Instructions:\nAnswer the question from the documents. "
        "If they do not contain the answer, say so.\n"
    ),
    "bold": "**Context:**\n{context}\n\n**Question:** {question}\n\n**Answer:**",
    "bold, colon outside": "**Instructions**: Answer briefly.\n\n**Context**: {context}\n\n**Question**: {question}\n",
    "triple quotes": 'Context: """\n{context}\n"""\n\nQuestion: {question}\n',
    "triple quotes, question first": 'Question: {question}\n\nContext:\n"""\n{context}\n"""\n\nAnswer using only the context above.\n',
    "backticks": "Answer the question about the text in triple backticks.\n\nText:\n```\n{context}\n```\n\nQuestion: {question}\n",
    "equals": "=== CONTEXT ===\n{context}\n\n=== QUESTION ===\n{question}\n\n=== ANSWER ===\n",
    "hashes": "### CONTEXT ###\n{context}\n\n### QUESTION ###\n{question}\n",
    "capitals": "CONTEXT\n{context}\n\nQUESTION\n{question}\n\nANSWER\n",
    "angle brackets": "<<CONTEXT>>\n{context}\n\n<<QUESTION>>\n{question}\n",
    "one line": "Use the following context to answer the question. Context: {context} Question: {question} Answer:",
    "longbench": (
        "Answer the question based on the given passages. Only give me the answer and do not output any other words.\n\nThe following "
        "are given passages.\n{context}\n\nAnswer the question based on the given passages. Only give me the answer and do not output "
        "any other words.\n\nQuestion: {question}\nAnswer:"
    ),
    "longbench, single": (
        "Read the following text and answer briefly.\n\n{context}\n\nNow, answer the following question based on the above text, only "
        "give me the answer and do not output any other words.\n\nQuestion: {question}\nAnswer:"
    ),
    "narrative": (
        "You are given a story, which can be either a novel or a movie script, and a question. Answer the question as concisely as you "
        "can, using a single phrase if possible. Do not provide any explanation.\n\nStory: {context}\n\nNow, answer the question based "
        "on the story as concisely as you can, using a single phrase if possible. Do not provide any explanation.\n\nQuestion: "
        "{question}\n\nAnswer:"
    ),
    "article": (
        "You are given a scientific article and a question. Answer the question as concisely as you can. If the question cannot be "
        'answered based on the information in the article, write "unanswerable".\n\nArticle: {context}\n\n Answer the question based '
        "on the above article as concisely as you can.\n\nQuestion: {question}\n\nAnswer:"
    ),
    "meeting": (
        "You are given a meeting transcript and a query containing a question or instruction. Answer the query in one or more "
        "sentences.\n\nTranscript:\n{context}\n\nNow, answer the query based on the above meeting transcript in one or more sentences."
        "\n\nQuery: {question}\nAnswer:"
    ),
    "book": "Read the book and answer the question. Be very concise in your answer.\n\n{context}\n\nQuestion: {question}\nAnswer:",
    "question twice": (
        "Answer this question from the documents: {question}\n\nDocuments:\n{context}\n\nRemember, the question is:\nQuestion: "
        "{question}\nAnswer:"
    ),
    "history between": (
        "Answer from the context.\n\nContext:\n{context}\n\nChat History:\nHuman: Hello\nAI: Hello! How can I help?\n\nQuestion: "
        "{question}\nAnswer:"
    ),
    "history before": (
        "Chat History:\nHuman: Hello\nAI: Hello! How can I help?\n\nContext:\n{context}\n\nFollow Up Input: {question}\nAnswer:"
    ),
    "user and assistant": "Context:\n{context}\n\nUser: {question}\nAssistant:",
    "instruction last": (
        "Sources:\n{context}\n\nQuestion: {question}\n\nAnswer in English and mark each statement with the source [n] it comes from."
    ),
    "unlabelled instruction last": (
        "QUESTION: {question}\n\nNEWS FOUND:\n{context}\n\nWrite an informative and useful answer.\n"
    ),
    "user question, retrieved context": (
        "Keep the answer professional.\n\nUser question:\n{question}\n\nRetrieved context:\n{context}\n\nReturn the response as JSON "
        "with an answer field.\n"
    ),
    "report": "Report content:\n{context}\n\nQuestion: {question}",
    "here is": "Here is the context: {context}\nAnswer this question: {question}",
    "haystack": (
        "Given the following information, answer the question.\n\nContext:\n\n    {context}\n\n\nQuestion: {question}\nAnswer:\n"
    ),
    "haystack, question first": (
        "Answer the question using the provided context. If it is not in the context, say so.\n\nQuestion: {question}\n\nContext: "
        "{context}\n\nAnswer:"
    ),
    "txtai": (
        "Answer the following question using only the context below. Only include information specifically discussed.\n\nquestion: "
        "{question}\ncontext: {context}\n"
    ),
    "knowledge base": (
        "You are an intelligent assistant. Please summarize the content of the knowledge base to answer the question. When all "
        "knowledge base content is irrelevant to the question, your answer must say so.\n      Here is the knowledge base:\n      "
        "{context}\n      The above is the knowledge base.\n\nQuestion: {question}"
    ),
    "search results": (
        "Web search results:\n\n{context}\n\nInstructions: Using the provided web search results, write a comprehensive reply to the "
        "given query. Make sure to cite results using [[number](URL)] notation.\nQuery: {question}\nReply in English."
    ),
}

LANGUAGES = {
    "de": "Beantworte die Frage ausschließlich mit dem hier gegebenen Kontext:\n{context}\n\nFrage: {question}",
    "de advice": (
        "\n    Du bist ein Berater und beantwortest nur Fragen anhand der Textstücke. Erfinde nichts.\n\n    Kontext:\n    {context}\n\n"
        "    Frage: {question}\n    Antwort:\n    "
    ),
    "de question first": "Regeln:\n- Nenne die Quelle.\n\nFrage: {question}\n\nKontext:\n{context}\n\nAntwort auf Deutsch, schrittweise:",
    "de sources": "Quellen:\n{context}\n\nFrage: {question}\n\nAntworte auf Deutsch und markiere jede Aussage mit der Quelle [n].",
    "de quotes": "Du bist Jurist.\n\nFrage: {question}\n\nZitate:\n{context}\n\nAntwort:",
    "de data": (
        "\n        Du bist ein Experte.\n        Hier sind die Daten mit Quellenangaben:\n        {context}\n\n        Beantworte die "
        "folgende Frage anhand der Daten oben in ganzen Sätzen.\n        Gib immer die Quelle an.\n        Frage: {question}\n        "
    ),
    "fr": (
        "\n    En utilisant le contexte ci-dessous, réponds à la question suivante. Si tu ne connais pas la réponse, dis-le.\n    "
        "Contexte : {context} \n    Question : {question}\n    Réponse :\n"
    ),
    "fr here": "Voici le contexte : {context}\nRéponds à cette question : {question}",
    "fr question first": "Question : {question}\nContexte : {context}\nRéponse :",
    "fr extracts": (
        "Tu es un assistant juridique. Réponds uniquement à partir des extraits suivants :\n\n{context}\n\nQuestion : {question}\n\nRéponse :"
    ),
    "es": "Usa solo el contexto siguiente.\n\nContexto:\n{context}\n\nPregunta: {question}\n",
    "es tags": (
        "Responde únicamente a partir del contexto delimitado abajo.\n\n<contexto>\n{context}\n</contexto>\n\nPregunta: {question}\n"
    ),
    "es news": (
        "Basándote en estas noticias, responde a la pregunta del usuario de forma clara.\n\nPREGUNTA: {question}\n\nNOTICIAS "
        "ENCONTRADAS:\n{context}\n\nGenera una respuesta informativa y útil.\n"
    ),
    "es articles": (
        "ARTÍCULOS DE CONTEXTO:\n{context}\n\nPREGUNTA: {question}\n\nINSTRUCCIONES:\n- Responde en español de forma clara\n- Usa solo "
        "información de los artículos\n\nRESPUESTA:"
    ),
    "es extracted": (
        "Contexto extraído del documento:\n\n{context}\n\nPregunta: {question}\n\nResponde en español, basándote solo en el contexto "
        "anterior."
    ),
    "it": (
        "Usa SOLO le informazioni fornite nel contesto per rispondere alla domanda.\n\nCONTESTO:\n{context}\n\nDOMANDA: {question}\n\n"
        "RISPOSTA:"
    ),
    "it rules": (
        "{context}\n\n---\n\nRispondi alla seguente domanda (in italiano) seguendo questa struttura: \n1. Introduzione\n2. Dettagli "
        "principali\n\nDomanda: {question}\n"
    ),
    "pt": (
        "Use APENAS as informações do contexto abaixo para responder.\n\nCONTEXTO:\n{context}\n\n---\n\nPERGUNTA: {question}\n\nRESPOSTA:"
    ),
    "pt passages": "Trechos do documento:\n\n{context}\n\nPergunta: {question}",
    "pt text": (
        "\n    Baseado no seguinte texto:\n    {context}\n    Responda à seguinte pergunta passo a passo de forma detalhada:\n    "
        "{question}\n    "
    ),
    "nl": (
        "Beantwoord de vraag ALLEEN op basis van de onderstaande context.\n\nContext:\n{context}\n\nVraag: {question}\n\nAntwoord (met "
        "bronvermelding):"
    ),
    "nl dashes": (
        "\n        Context:\n        {context}\n        ---\n        Dit is de vraag die je moet beantwoorden.\n\n        Vraag: {question}"
        "\n        "
    ),
    "ru": "Контекст:\n{context}\n\nВопрос: {question}",
    "ru question first": (
        "Вопрос: {question}\n\nРелевантные фрагменты статей:\n{context}\n\nДай связный ответ на русском. Опирайся только на контекст выше.\n"
    ),
    "zh": "根据下面的上下文回答问题：\n{context}\n\n问题：{question}\n",
    "zh labels": "参考资料：\n{context}\n\n问题：{question}\n\n回答：",
    "zh dashes": (
        "参考信息：\n{context}\n---\n我的问题或指令：\n{question}\n---\n请根据上述参考信息回答我的问题。回答要简洁、准确。\n"
    ),
    "zh brackets": (
        "你是一个智能助手，请根据以下检索到的内容回答用户的问题。\n【用户问题】\n{question}\n\n【相关资料】\n{context}\n\n【回答要求】\n"
        "1. 基于上述内容回答问题\n2. 回答要简洁明了\n\n请回答："
    ),
    "zh indented": (
        "\n                使用以下上下文来回答最后的问题。\n                如果你不知道答案，就直接说不知道，不要编造答案。\n\n                "
        "上下文：\n                {context}\n\n                问题：{question}\n\n                回答：\n                "
    ),
    "zh background": "请根据以下背景信息回答问题。如果无法得到答案，请明确说明。\n\n背景信息：\n{context}\n\n问题：{question}\n\n回答：",
    "zh longbench": (
        "阅读以下文字并用中文简短回答：\n\n{context}\n\n现在请基于上面的文章回答下面的问题，只告诉我答案，不要输出任何其他字词。\n\n问题："
        "{question}\n回答："
    ),
    "ja": '以下の文脈だけを踏まえて質問に回答してください。\n\n文脈: """\n{context}\n"""\n\n質問: {question}\n',
    "ja context": (
        "あなたは親切なアシスタントです。以下のコンテキストを参考に質問に答えてください。\n\nコンテキスト:\n{context}\n\n質問: {question}\n\n回答:"
    ),
    "ja only": "次の文脈（context）のみに基づいて質問（question）に答えてください。:\n    {context}\n\n    質問: {question}\n    ",
    "ja one line": (
        "以下のコンテキスト情報だけを使って、質問に日本語で答えてください。コンテキスト: {context} 質問: {question} 回答:"
    ),
    "ko": "다음 문서를 바탕으로 질문에 답하세요.\n\n문서(context):\n{context}\n\n질문: {question}\n\n답변:",
    "ko question first": "질문: {question}\n참고자료:\n{context}\n답변:",
    "tr": "Aşağıdaki bağlamı kullanarak soruyu yanıtla.\n\nBağlam:\n{context}\n\nSoru: {question}\n\nCevap:",
    "pl": "Odpowiedz na pytanie na podstawie poniższego kontekstu.\n\nKontekst:\n{context}\n\nPytanie: {question}\nOdpowiedź:",
    "sv": "Svara på frågan med hjälp av sammanhanget.\n\nSammanhang:\n{context}\n\nFråga: {question}\nSvar:",
}

LAYOUTS = {**{f"en {name}": layout for name, layout in ENGLISH.items()}, **LANGUAGES}

QUESTIONS = (
    "How many parts did the turbine have in 1954?",
    "Who sold the mill to Haas",
    "What did Keller write about the quarry, and why does it matter for the ferry?",
    "List all owners of the orchard",
    "In which year was the archive inspected?",
    "Wer kaufte die Mühle von Moreau?",
    "Qui a payé la facture de 45 couronnes ?",
    "¿Quién compró el molino en 1954?",
    "Кто купил мельницу у Новака?",
    "谁买下了磨坊？",
    "製粉所を買ったのは誰ですか？",
    "공장에는 기계가 몇 대 있었습니까?",
    "The auditor says that 45 machines were there.\nThe owner says 54.\nWho is right?",
    "tell me about the ledger of Okafor",
)
