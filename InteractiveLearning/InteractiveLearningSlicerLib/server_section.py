"""The panel's section of the server: where the engine runs, who is signed in, and whether it answers."""

import time

from RefSegLib.errors import RefSegError
from RefSegLib.jobs import Signal
from RefSegSlicerLib import settings, signing
from RefSegSlicerLib.connection import checkedUrl
from RefSegSlicerLib.translation import tr as _

# How often a server that is signed in at is asked whether it still answers, while the panel is shown.
ASK_SECONDS = 30.0


class ServerSection:
    """ui: the widgets of InteractiveLearningServer.ui by name; held() -> str: why the engine cannot be another one
    now, empty if it can; guarded(work): runs what a button does.

    changed(): the settings name another service, or somebody else is signed in: open it anew. What stands in the
    fields counts once somebody has signed in with it.
    """

    def __init__(self, ui, held, guarded):
        self.ui, self._held, self._guarded = ui, held, guarded
        self.changed = Signal()
        self._job = self._asked = None
        self._entered, self._due, self._seen = False, 0.0, None
        for button, action in {
            ui.localButton: self.onLocal,
            ui.siteButton: self.onSite,
            ui.testButton: self.onTest,
            ui.signInButton: self.onSignIn,
            ui.signOutButton: self.onSignOut,
        }.items():
            button.connect("clicked(bool)", lambda *_, action=action: self._do(action))
        for edit in (ui.urlEdit, ui.tokenEdit):
            edit.connect("textChanged(QString)", self.update)
            edit.connect("returnPressed()", lambda: self._do(self.onSignIn))
        self._fromSettings()

    def enter(self):
        """Look soon whether the server answers."""
        self._entered, self._due = True, 0.0
        self.update()

    def exit(self):
        """Ask the server nothing more."""
        self._entered = False

    def close(self):
        """Nothing more is told."""
        self.exit()
        for job in (self._job, self._asked):
            if job is not None:
                job.cancel()
        self._job = self._asked = None

    def poll(self):
        """Tell what has come back; ask now and then whether the server answers; follow settings changed elsewhere."""
        if settings.snapshot() != self._seen:
            self._fromSettings()
            self.changed()
        for job in (self._job, self._asked):
            if job is not None:
                job.poll()
        if self._entered and settings.atSite() and self._asked is None and time.monotonic() > self._due:
            self._due = time.monotonic() + ASK_SECONDS
            self._ask()

    def update(self, *_unused):
        """Enable what can succeed, and say why the rest cannot."""
        ui, site = self.ui, self.ui.siteButton.checked
        held, busy = self._held(), _("The server is being asked.") if self._job is not None else ""
        for button, tip in (
            (ui.localButton, _("This computer segments and learns. Images do not leave it.")),
            (ui.siteButton, _("A server segments and learns. Images are sent there over an encrypted connection.")),
        ):
            button.enabled, button.toolTip = not (held or busy), held or busy or tip
        ui.serverFields.visible = ui.serverButtons.visible = site
        address = "" if ui.urlEdit.text.strip() else _("Enter the address of the server.")
        elsewhere = "" if self._isCurrent() else held
        out = "" if settings.atSite() else _("Nobody is signed in.")
        for button, reason, tip in (
            (ui.testButton, busy or address, _("Try address, certificate and token, and change nothing.")),
            (ui.signInButton, busy or address or elsewhere, _("Keep the token in the keyring and use this server.")),
            (ui.signOutButton, busy or out or held, _("Remove the token from the keyring of this computer.")),
        ):
            button.enabled, button.toolTip = not reason, reason or tip
        for edit in (ui.urlEdit, ui.certificateEdit, ui.tokenEdit):
            edit.enabled = not busy

    def onLocal(self):
        """Let this computer do the work, at once."""
        self._switch(settings.LOCAL)

    def onSite(self):
        """Let the server do the work that somebody was signed in at before; else wait for them to sign in."""
        if settings.chosen(settings.URL_KEY):
            self._switch(settings.SITE)
        else:
            self._tell(_("Enter address and token, and press Sign in."))

    def onTest(self):
        """Try what stands in the fields."""
        url, certificate = self._entries()
        job = signing.signIn(url, self.ui.tokenEdit.text.strip(), certificate or None, keep=False)
        self._run(job, lambda found: self._tell(found.sentence))

    def onSignIn(self):
        """Use the server in the fields from now on, if it knows the token."""
        if not self.ui.signInButton.enabled:  # Return was pressed in a field
            return
        url, certificate = self._entries()
        token, self.ui.tokenEdit.text = self.ui.tokenEdit.text.strip(), ""  # it is never shown again
        self._run(
            signing.signIn(url, token, certificate or None), lambda found: self._signedIn(url, certificate, found)
        )

    def onSignOut(self):
        """Forget the token."""
        url, _certificate = self._stored()
        self._run(signing.signOut(url), lambda _none: self._signedOut(url))

    def _signedIn(self, url, certificate, found):
        held = "" if (url, certificate) == self._stored() and settings.atSite() else self._held()
        if held:  # a session was begun meanwhile
            self._tell(held)
            return
        settings.choose(settings.URL_KEY, url)
        settings.choose(settings.CERTIFICATE_KEY, certificate)
        settings.choose(settings.WHERE_KEY, settings.SITE)
        self._fromSettings()
        self._told(found)
        self._tell(found.sentence)
        self.changed()

    def _signedOut(self, url):
        self._tell(_("Signed out. The token for {url} is not kept any more.").format(url=url))
        self._due = 0.0
        self.changed()

    def _switch(self, where):
        held = self._held()
        if not held:
            settings.choose(settings.WHERE_KEY, where)
        self._fromSettings()
        self._tell(held)
        if not held:
            self.changed()

    def _ask(self):
        """Whether the server answers, and as whom; in the background, and nothing has to wait for it."""
        url, certificate = self._stored()
        job = self._asked = signing.signIn(url, "", certificate or None)
        job.finished.connect(lambda found: self._answered(job, found))
        job.failed.connect(lambda error: self._answered(job, error))

    def _answered(self, job, answer):
        if job is self._asked:
            self._asked = None
            self._told(answer)

    def _told(self, answer):
        """Show the state of the link: what came back from the server, or why nothing did."""
        if isinstance(answer, signing.SignedIn):
            text = _("Connected to {url}, signed in as {name} ({role}).")
            answer = text.format(url=settings.chosen(settings.URL_KEY), name=answer.name, role=answer.role)
        self.ui.linkLabel.text = str(answer)

    def _run(self, job, then):
        self._job = job
        job.finished.connect(lambda result: self._next(lambda: then(result)))
        job.failed.connect(lambda error: self._next(lambda: self._tell(str(error))))
        self._tell(_("Asking the server..."))

    def _next(self, then):
        self._job = None
        self._do(then)
        self.update()

    def _do(self, action):
        """Run it; an error for people is told beside what they have pressed."""

        def tried():
            try:
                action()
            except RefSegError as error:
                self._tell(str(error))

        self._guarded(tried)

    def _tell(self, sentence):
        self.ui.serverLabel.text = sentence
        self.update()

    def _fromSettings(self):
        """Show what is chosen."""
        self._seen, self._due = settings.snapshot(), 0.0
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None
        (self.ui.siteButton if settings.atSite() else self.ui.localButton).checked = True
        self.ui.urlEdit.text, self.ui.certificateEdit.currentPath = self._stored()
        self.ui.linkLabel.text = (
            _("Asking {url}...").format(url=self._stored()[0])
            if settings.atSite()
            else _("The engine of this computer does the work; it starts when it is needed.")
        )
        self.update()

    def _isCurrent(self):
        """Whether the fields name the server that is in use."""
        entered = self.ui.urlEdit.text.strip().rstrip("/"), self.ui.certificateEdit.currentPath.strip()
        return settings.atSite() and entered == self._stored()

    def _entries(self):
        return checkedUrl(self.ui.urlEdit.text), self.ui.certificateEdit.currentPath.strip()

    @staticmethod
    def _stored():
        return settings.chosen(settings.URL_KEY), settings.chosen(settings.CERTIFICATE_KEY)
