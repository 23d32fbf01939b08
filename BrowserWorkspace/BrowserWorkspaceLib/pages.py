"""The few pages that the launcher shows by itself."""

from __future__ import annotations

import html

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{head}
<title>RefSeg</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 32em; margin: 20vh auto; padding: 0 1em }}
input, button {{ font: inherit; padding: .3em .6em }}
input {{ width: 20em; max-width: 100% }}
</style>
<h1>RefSeg</h1>
{body}
</html>
"""
SIGN_IN = "/-/sign-in"

# Watches the process behind the page: once another one is at work, or nobody is signed in, what is seen is outdated.
# Somebody who has no connection is not looked after: trame says so itself.
WATCH = """
(async () => {
  let known = null;
  for (;;) {
    try {
      const answer = await fetch("/-/workspace");
      const now = answer.ok ? (await answer.json()).run : "signed out";
      if (known !== null && now !== known) { location.replace("/"); return; }
      known = now;
    } catch { }
    await new Promise((done) => setTimeout(done, 2000));
  }
})();
"""
WATCHED = b'<script src="/-/watch.js"></script></body>'


def sign_in(sentence: str) -> str:
    """Asks for a token. sentence: why."""
    form = (
        f'<form method="post" action="{SIGN_IN}"><label>Token <input type="password" name="token" '
        'autocomplete="current-password" autofocus required></label> <button>Sign in</button></form>'
    )
    return _page(sentence, form)


def starting() -> str:
    """It takes a while; looks again by itself."""
    return _page("The workspace is starting. This takes some seconds.", head='<meta http-equiv="refresh" content="1">')


def failed(sentence: str) -> str:
    """It did not start."""
    return _page(sentence, '<p><a href="/">Start it again</a></p>')


def refused(sentence: str) -> str:
    """One sentence."""
    return _page(sentence)


def _page(sentence: str, more: str = "", head: str = "") -> str:
    return _PAGE.format(head=head, body=f"<p>{html.escape(sentence)}</p>{more}")
