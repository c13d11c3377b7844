"""The ASGI application, for `uvicorn stepgate.main:app`; settings are read when it starts, not when it is imported."""

from stepgate.api.app import create_app
from stepgate.compose import serving

app = create_app(serving)
