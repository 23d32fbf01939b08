"""What people write and choose is at the server before the button they press next.

trame sends fields and switches only when no answer is outstanding, but presses at once: on a busy machine the server
looked into a folder before it had heard of its name (seen in a test, and so a patient's name could have been late).
"""

from trame.widgets import client

# Only before a press: else a slider that is dragged would fill the line with places where nobody stopped.
SCRIPT = """
if (!window.refseg_ordered) {
  const press = trame.trigger;
  const send = async () => {
    const { state } = trame;
    if (!state.dirtyKeys.size) return;
    const usual = state.client;
    state.client = Object.create(usual, { isBusy: { value: () => false } });
    const sent = state.flush();
    state.client = usual;
    await sent;
  };
  window.refseg_ordered = Promise.resolve();
  trame.trigger = (...what) => {
    window.refseg_ordered = Promise.all([window.refseg_ordered, send()]);
    return window.refseg_ordered.then(() => press(...what));
  };
}
"""


def build() -> None:
    """Put it on the page, where the page is being made."""
    client.Script(SCRIPT)
