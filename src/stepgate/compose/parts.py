"""Single parts, each from the settings alone."""

import asyncio
import gc
import os
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from stepgate.api.sign_on import SignOn
from stepgate.api.tokens import OpenIdIssuer
from stepgate.domain.policy.decide import Policy
from stepgate.engine.policy_file import load_policy
from stepgate.engine.spending import Spending
from stepgate.executors.base import Bounds
from stepgate.executors.registry import Registry
from stepgate.llm.breaker import Breaker
from stepgate.llm.offline import OfflineModel
from stepgate.llm.openai import OpenAIRouter
from stepgate.llm.prices import Price, Prices
from stepgate.llm.protocol import ModelRouter
from stepgate.llm.smart_router import SmartRouter
from stepgate.settings import Settings
from stepgate.state_files import local_secret, secret_versions_key
from stepgate.storage.database import Database
from stepgate.storage.embedded import acquire
from stepgate.storage.holds import Holds
from stepgate.workspace.sandbox.limits import Limits
from stepgate.workspace.secrets import SecretFolder

EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def policy_of_settings(settings: Settings, registry: Registry) -> Policy | None:
    """The rules of the policy file that these settings lead to, None where there is none. Raises InvalidPolicy."""
    return load_policy(
        settings.policy,
        state_dir=settings.state_dir,
        workspace_root=settings.workspace_root,
        step_types=step_types(registry),
    )


def step_types(registry: Registry) -> list[str]:
    return [executor.type for executor in registry]


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """The names beside the loopback ones that this installation gave itself."""
    own = urlsplit(settings.url).hostname if settings.url is not None else None
    return frozenset(name.lower() for name in (settings.host, own) if name and name not in EVERY_ADDRESS)


def secret_of(settings: Settings) -> str:
    """What decisions must be sent with: the configured key, else the secret of the state folder."""
    return local_secret(settings.state_dir) if settings.key is None else settings.key.get_secret_value()


async def database_url(settings: Settings, exits: AsyncExitStack) -> tuple[str, bool]:
    """The URL, and whether it is the embedded server's (which then runs until `exits` closes)."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value(), False
    server = await asyncio.to_thread(acquire, settings.state_dir, binaries=settings.postgres_bin)
    exits.callback(server.release)
    return server.sqlalchemy_url(), True


def model_router(settings: Settings) -> ModelRouter:
    """`auto`: the configured server, taken for an OpenAI-compatible one, if there is one; else the offline model."""
    if settings.model_url is None or settings.model_router == "offline":
        return OfflineModel()
    key = None if settings.model_key is None else settings.model_key.get_secret_value()
    if settings.model_router == "smart_router":
        return Breaker(SmartRouter(settings.model_url, key))
    openai = OpenAIRouter(
        settings.model_url,
        key,
        settings.model_default,
        tiers=settings.model_tiers,
        streams=settings.model_stream,
    )
    return Breaker(openai)


def spending(settings: Settings, database: Database, router: ModelRouter) -> Spending:
    """What a call may cost and what it did, as far as anybody knows prices."""
    url = settings.model_url if settings.model_router in ("auto", "openai") else None
    given = {model: Price.parse(text) for model, text in settings.model_prices.items()}
    free = isinstance(router, OfflineModel)
    return Spending(Holds(database), Prices(given, url), settings.model_max_output_tokens, free=free)


def token_issuer(settings: Settings) -> OpenIdIssuer | None:
    """Who signs tokens that count here; None where none is configured."""
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    return OpenIdIssuer(
        settings.oidc_issuer,
        settings.oidc_audience,
        jwks_url=settings.oidc_jwks_url,
        roles_claim=settings.oidc_roles_claim,
        tenant_claim=settings.oidc_tenant_claim,
    )


def sign_on(settings: Settings, issuer: OpenIdIssuer | None) -> SignOn | None:
    """The console as a client of the issuer; None where that does not know it."""
    if issuer is None or settings.oidc_client_id is None or settings.url is None:
        return None
    secret = None if settings.oidc_client_secret is None else settings.oidc_client_secret.get_secret_value()
    return SignOn(issuer, settings.oidc_client_id, secret, f"{settings.url}/console/callback")


def bounds(settings: Settings) -> Bounds:
    """What steps may use, as the settings say."""
    limits: dict[str, Any] = dict(settings.command_limits)
    command = Limits(wall_s=float(settings.command_timeout_s), output_bytes=settings.max_output_bytes, **limits)
    environment = {name: os.environ[name] for name in settings.sandbox_env if name in os.environ}
    return Bounds(settings.max_read_bytes, settings.max_output_bytes, command, environment)


def secret_folder(settings: Settings) -> SecretFolder | None:
    """Where commands get their secrets, and what their versions are made with."""
    if settings.secrets_dir is None:
        return None
    key = secret_versions_key(settings.state_dir)
    return SecretFolder(settings.secrets_dir, key, (settings.workspace_root, *settings.sandbox_readonly))


def tune_memory() -> None:
    """Keeps the collector from walking what lives for ever: it cost a third of a small step's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
