"""The encodings of the world's languages: marked, declared, declared wrongly, and not at all."""

import pytest

from rapid_integrations.documents.declared_encoding import codec_of, declared_in_html, declared_in_text
from rapid_integrations.documents.html_file import read_html
from rapid_integrations.documents.text_file import decode
from rapid_integrations.errors import ConfigurationError

# Article 1 of the Universal Declaration of Human Rights, whole or in part.
TEXTS = {
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience; c'est très élevé.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geiste der Brüderlichkeit begegnen.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente; mañana también.",
    "Polish": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "Czech": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím a mají spolu jednat v duchu bratrství.",
    "Hungarian": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, ésszel és lelkiismerettel bírván, egymással szemben testvéri szellemben kell hogy viseltessenek.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.",
    "Ukrainian": "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом і совістю і повинні діяти у відношенні один до одного в дусі братерства.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι με λογική και συνείδηση.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
    "Hebrew": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחווה.",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا بروح الإخاء.",
    "Lithuanian": "Visi žmonės gimsta laisvi ir lygūs savo orumu ir teisėmis. Jiems suteiktas protas ir sąžinė ir jie turi elgtis vienas kito atžvilgiu kaip broliai.",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを授けられている。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 부여받았다.",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "Taiwanese": "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神互相對待。",
}
CODECS = [
    *(("French", codec) for codec in ("cp1252", "iso8859-15")),
    ("German", "cp1252"),
    ("Spanish", "cp1252"),
    *(("Polish", codec) for codec in ("cp1250", "iso8859-2")),
    *(("Czech", codec) for codec in ("cp1250", "iso8859-2")),
    ("Hungarian", "cp1250"),
    *(("Russian", codec) for codec in ("cp1251", "koi8-r", "iso8859-5", "cp866")),
    *(("Ukrainian", codec) for codec in ("cp1251", "koi8-u")),
    *(("Greek", codec) for codec in ("cp1253", "iso8859-7")),
    ("Turkish", "cp1254"),
    ("Hebrew", "cp1255"),
    ("Arabic", "cp1256"),
    ("Lithuanian", "cp1257"),
    ("Thai", "cp874"),
    *(("Japanese", codec) for codec in ("cp932", "euc_jp", "iso2022_jp")),
    *(("Korean", codec) for codec in ("cp949", "euc_kr")),
    ("Chinese", "gb18030"),
    ("Taiwanese", "big5"),
]


@pytest.mark.parametrize(("language", "codec"), CODECS)
def test_texts_of_all_languages_are_read_and_the_guess_is_said(language, codec):
    text, remarks = decode(TEXTS[language].encode(codec), "a.txt")
    assert text == TEXTS[language]
    assert len(remarks) == 1 and remarks[0].startswith("read as ")


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("language", TEXTS)
def test_unicode_is_certain(language, codec):
    assert decode(TEXTS[language].encode(codec), "a.txt") == (TEXTS[language], ())


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("language", ["French", "Russian", "Japanese"])
def test_unicode_without_a_mark(language, codec):
    text, (remark,) = decode((TEXTS[language] + "\r\n").encode(codec), "a.txt")
    assert text == TEXTS[language] + "\n" and remark == f"read as {codec}, which is a guess: it has no mark"


@pytest.mark.parametrize("text", ["très élevé", "été", "naïve café", "Größe", "élève à Noël", "30 € – “fine”", "£5"])
def test_a_few_western_words(text):
    assert decode(text.encode("cp1252"), "a.txt")[0] == text


def page(charset):
    return f'<!doctype html><html><head><meta charset="{charset}"></head><body><p>{{}}</p></body></html>'


def shown(data):
    document = read_html(data, "a.html")
    return document.text, document.remarks


def test_a_utf8_page_that_declares_utf16():
    assert shown(page("utf-16").format("Größe").encode()) == ("Größe", ())


def test_a_utf8_page_that_declares_latin1():
    assert shown(page("iso-8859-1").format("Größe").encode()) == ("Größe", ())


def test_labels_mean_what_browsers_take_them_for():
    assert shown(page("iso-8859-1").format("30 € “fine”").encode("cp1252")) == ("30 € “fine”", ())
    assert shown(page("Shift_JIS").format("①髙～").encode("cp932")) == ("①髙～", ())
    assert shown(page("euc-kr").format("똠방각하").encode("cp949")) == ("똠방각하", ())
    assert shown(page("gb2312").format("朱镕基").encode("gbk")) == ("朱镕基", ())
    assert codec_of("x-sjis") == "cp932" and codec_of("latin1") == "cp1252" and codec_of("csisolatin5") == "cp1254"


@pytest.mark.parametrize("label", ["undefined", "no-such-thing", "rot13", "hex", "idna", "\u2603", "none", "utf-7"])
def test_labels_that_mean_nothing(label):
    text, remarks = shown(page(label).format(TEXTS["German"]).encode("cp1252", "replace"))
    assert text == TEXTS["German"] and len(remarks) == 1


def test_a_russian_page_that_declares_a_western_encoding():
    text, (remark,) = shown(page("iso-8859-1").format(TEXTS["Russian"]).encode("cp1251"))
    assert text == TEXTS["Russian"] and "it declares iso-8859-1, which does not fit" in remark


def test_a_western_page_that_declares_a_russian_encoding():
    text, (remark,) = shown(page("windows-1251").format(TEXTS["French"]).encode("cp1252"))
    assert text == TEXTS["French"] and "it declares windows-1251, which does not fit" in remark


def test_a_taiwanese_page_that_declares_another_encoding_of_ideographs():
    text, (remark,) = shown(page("euc-kr").format(TEXTS["Taiwanese"] * 3).encode("big5"))
    assert "looks like big5" in remark or text == TEXTS["Taiwanese"] * 3


def test_where_files_declare_their_encoding():
    assert declared_in_html(b'<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">') == "koi8-r"
    assert declared_in_html(b" " * 1100 + b"<meta charset=koi8-r>") is None
    assert declared_in_text(b'<?xml version="1.0" encoding="cp1251"?><a/>') == "cp1251"
    assert declared_in_text(b"#!/usr/bin/python\n# -*- coding: latin-1 -*-\n") == "latin-1"
    assert declared_in_text(b"\\documentclass{a}\n\\usepackage[latin9]{inputenc}\n") == "iso8859-15"
    assert declared_in_text(b"no coding at all") is None


def test_an_xml_file_is_read_as_it_declares():
    data = '<?xml version="1.0" encoding="windows-1251"?><p>да</p>'.encode("cp1251")
    from rapid_integrations.documents.reading import plain_text

    assert "<p>да</p>" in plain_text(data, "a.xml").text


def test_one_nul_in_a_log_is_text():
    line = b"2026-05-01 12:00:01 worker started\n"
    assert decode(line * 3 + b"\0" + line, "a.log") == ((line * 4).decode(), ("1 NUL character left out",))
    assert decode(line * 5 + bytes(4096), "a.log") == ((line * 5).decode(), ("4,096 NUL characters left out",))


def test_utf8_that_is_cut_within_a_character():
    text, (remark,) = decode("Größe und Maß".encode()[:-1], "a.txt")
    assert text == "Größe und Ma\ufffd" and "1 broken character," in remark


@pytest.mark.parametrize("name", ["undefined", "no-such-thing", "hex", "a\0b"])
def test_an_unknown_encoding_of_the_user_is_named(name):
    with pytest.raises(ConfigurationError, match="is unknown"):
        decode(b"abc", "a.txt", encoding=name)


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Der Vertrag endet am 31. Dezember, die Miete beträgt 500, gemäß Größe.", "cp850"),
        ("Le contrat s'achève le 31 décembre ; le loyer payé à l'avance.", "cp850"),
        ("El señor Muñoz paga el alquiler cada año; la señora también.", "cp850"),
        ("Der Vertrag endet am 31. Dezember, die Miete beträgt 500 gemäß „Größe“.", "mac_roman"),
        ("Le contrat s’achève le 31 décembre ; le loyer payé à l’avance.", "mac_roman"),
        ("Договор заканчивается 31 декабря, арендная плата составляет 500 рублей.", "mac_cyrillic"),
    ],
)
def test_texts_of_old_machines(text, codec):
    remark = f"read as {codec}, which is a guess: it is not UTF-8. Name it with --encoding"
    assert decode(text.encode(codec), "a.txt") == (text, (remark,))


@pytest.mark.parametrize("text", ["2×3 m²·K/W für 5µm×3µm", "price 5£ and 3½ cups, 20°C, ±5 µm, José"])
def test_signs_beside_digits_are_no_letters(text):
    assert decode(text.encode("cp1252"), "a.txt")[0] == text


def test_korean_in_utf16_without_a_mark():
    text = "계약은 12월 31일에 종료되며 임대료는 월 500원입니다."
    assert decode(text.encode("utf-16-le"), "a.txt")[0] == text
