"""The models as a caller sees them: those that its token may call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpcerrors_router.config.models import Models
from grpcerrors_router.errors import PermissionDenied, Unauthenticated, UnknownModel
from grpcerrors_router.gateway.model_key import Metadata, ModelKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.message import Message

    from grpcerrors_router.router import SmartRouter
    from grpcerrors_router.security.access import Access
    from grpcerrors_router.security.tokens import Token

_KEPT = 1024
"""Tokens of which the models are remembered."""


class Catalogue:
    """Finds the model that a call is for, if its caller may call it.

    For a caller, the models that it may not call do not exist: no error, hint or answer depends on
    them.

    Args:
        router: the router.
        access: finds the callers' tokens; None if everyone may call every model.
    """

    def __init__(self, router: SmartRouter, access: Access | None = None) -> None:
        self._router = router
        self._access = access
        self._all = ModelKeys(router.models)
        self._keys: dict[Token, ModelKeys] = {}
        self._identities = router.models.identities
        self.key: Callable[[str, type[Message] | None, Metadata, bytes], str]
        """Returns the model that a call is for; arguments and errors are those of `ModelKeys.of`.
        Raises Unauthenticated and PermissionDenied too."""
        self.key = self._all.of if access is None else self._permitted

    def _permitted(
        self, method: str, kind: type[Message] | None, metadata: Metadata, data: bytes
    ) -> str:
        assert self._access is not None  # noqa: S101 - else `key` is another method
        caller = self._access.identify(metadata)
        keys = self._keys_of(caller)
        # First, since the error of one that may be called says more.
        _check(caller, keys.from_metadata(metadata))
        model = keys.of(method, kind, metadata, data)
        _check(caller, model)
        return model

    def _keys_of(self, caller: Token) -> ModelKeys:
        if caller.models is None:
            return self._all
        models = self._router.models
        if self._identities is not models.identities:  # they were replaced
            self._identities = models.identities
            self._keys.clear()
        keys = self._keys.get(caller)
        if keys is None:
            if len(self._keys) >= _KEPT:  # of tokens that are gone, too
                self._keys.clear()
            visible = {name: spec for name, spec in models.items() if caller.may_call(name)}
            keys = self._keys[caller] = ModelKeys(Models(visible))
        return keys

    def visible(self, models: Iterable[str], metadata: Metadata) -> list[str]:
        """Return those of `models` that the caller may call. Raises Unauthenticated."""
        if self._access is None:
            return list(models)
        caller = self._access.identify(metadata)
        return [model for model in models if caller.may_call(model)]

    def unknown(self, model: str, metadata: Metadata) -> UnknownModel:
        """Return the error for an unknown model, with a hint that names visible models only."""
        models = self._router.models
        known = {*models, *self._router.table.models()} - models.retired
        try:
            return UnknownModel(model, self.visible(known, metadata))
        except Unauthenticated:  # the token was revoked meanwhile
            return UnknownModel(model, ())


def _check(caller: Token, model: str) -> None:
    if model and not caller.may_call(model):
        raise PermissionDenied(
            caller.name, f'call model "{model}"', "add the model to its models", model=model
        )
