"""Builds every object from the settings: the only package that knows all of them."""

from stepgate.compose.parts import bounds, database_url, model_router, policy_of_settings, secret_of
from stepgate.compose.serving import app_of_stack, services_of_stack, serving
from stepgate.compose.stack import Stack, open_stack

__all__ = [
    "Stack",
    "app_of_stack",
    "bounds",
    "database_url",
    "model_router",
    "open_stack",
    "policy_of_settings",
    "secret_of",
    "services_of_stack",
    "serving",
]
