"""Texts as strangers write them: what a page must show as it is, and never obey."""

MARKUP = (
    '<img/src="x"/onerror="window.harmed=1">',
    '<svg/onload="window.harmed=1">',
    "<script>window.harmed=1</script>",
    "<b>bold</b>",
    "&lt;entity&gt;",
    "javascript:window.harmed=1",
    "{{harmed}}",
    "${harmed}",
)
"""Words that would do something, or look otherwise, if a page took them for its own."""

LONG_WORD = "long" * 75
N_LONG = 2_047
"""Words of the longest text; with the special token before them 2,048 tokens."""

SCRIPTS = {
    "arabic": "السلام عليكم هذا نص من اليمين إلى اليسار",
    "hebrew": "שלום עולם זה טקסט מימין לשמאל",
    "chinese": "注意力 是 一切 你 所 需要 的",
    "japanese": "これ は トークン です",
    "thai": "สวัสดี ชาว โลก",
    "hindi": "नमस्ते दुनिया यह पाठ है",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇺🇳 end",
    "combining": "Z̷͎͗a̴̛͜l̶̰̇g̵͉̈ó e\u0301 a\u0308\u0323 end",
    "mixed": "price ₪12 שלום 2024 (abc) السلام 7% end",
    "controls": "before \n after \t tab \r\n line \u200b zero \u202e override \u00a0 end",
}

STRANGERS = [
    " ".join(("markup", *MARKUP, "end")),
    *SCRIPTS.values(),
    f"short {LONG_WORD} end",
]
LONG_TEXT = " ".join(f"word{i % 97}" for i in range(N_LONG))
