"""The application: routes and wrappers put together."""

from fastapi import FastAPI
from starlette.types import ASGIApp

from labfleet_api.service import (
    accounts,
    builds,
    changes,
    commit,
    containers,
    execs,
    files,
    image_transfer,
    images,
    network_routes,
    nodes,
    pruning,
    streams,
    system,
    unlinking,
    usage,
    volumes,
    waiting,
)
from labfleet_api.service.bounds import Bounded
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import Measured, Versions, install_errors
from labfleet_api.service.identities import Identified
from labfleet_api.service.life import Life
from labfleet_api.service.networks import Networks


def routes(fleet: Fleet) -> FastAPI:
    """The routes, without wrappers."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    networks = Networks(fleet)
    life = Life(fleet, networks)
    for router in (
        system.router(fleet),
        usage.router(fleet),
        accounts.router(fleet),
        nodes.router(fleet),
        containers.router(fleet, life),
        changes.router(fleet, changes.Changes(fleet)),
        waiting.router(fleet),
        pruning.router(fleet, life),
        streams.router(fleet),
        execs.router(fleet),
        files.router(fleet),
        image_transfer.router(fleet),
        builds.router(fleet, networks),
        commit.router(fleet),
        images.router(fleet),
        network_routes.router(fleet, networks),
        volumes.router(fleet),
        unlinking.router(fleet),
    ):
        app.include_router(router)
    install_errors(app, fleet.chassis.log)
    return app


def application(fleet: Fleet) -> ASGIApp:
    """The whole application."""
    return Versions(Measured(Identified(Bounded(routes(fleet)), fleet.memory.credentials)))
