"""Controls that several panels have. Each says in its title what it does, or why it cannot be used now."""

from trame.widgets import html
from trame.widgets.vuetify3 import VBtn


def action(text, click, why, title, **options):
    """A button. text: a text or (expression,); why: name of the state variable (an expression) that tells why it is
    disabled, empty if it is not; title: what it does, a text or (expression,)."""
    does = title[0] if isinstance(title, tuple) else quoted(title)
    classes = options.pop("holder", "flex-grow-1")
    with html.Span(title=(f"{why} || {does}",), classes=classes):
        VBtn(
            text=text,
            click=click,
            disabled=(f"!!({why})",),
            block=True,
            variant=options.pop("variant", "tonal"),
            size=options.pop("size", "small"),
            **options,
        )


def row(**options):
    """Controls beside one another."""
    return html.Div(classes="d-flex flex-row align-center ga-2 mb-2 " + options.pop("classes", ""), **options)


def heading(text):
    """What the controls below are about."""
    html.Div(text, classes="text-subtitle-2 mt-3 mb-1")


def quoted(text) -> str:
    """A text as an expression of the page."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace('"', "&quot;")
    return f"'{escaped}'"
