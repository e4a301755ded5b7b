"""A JupyterHub whose servers are containers of a fleet; read by `jupyterhub --config`."""

import os

SERVE = "mkdir -p /www && echo up > /www/index.html && exec httpd -f -p 8888 -h /www"

c = get_config()  # noqa: F821 - jupyterhub puts it there
c.JupyterHub.bind_url = f"http://127.0.0.1:{os.environ['PROXY_PORT']}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{os.environ['HUB_PORT']}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{os.environ['PROXY_API_PORT']}"
c.ConfigurableHTTPProxy.command = ["node", os.environ["PROXY_PROGRAM"]]
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.cleanup_servers = False  # the test takes them away
c.JupyterHub.services = [{"name": "test", "api_token": os.environ["HUB_TOKEN"]}]
c.JupyterHub.load_roles = [
    {"name": "test", "services": ["test"], "scopes": ["admin:users", "admin:servers", "proxy"]}
]
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = "busybox"
c.DockerSpawner.cmd = ["sh", "-c", SERVE]
c.DockerSpawner.network_name = "class"
c.DockerSpawner.use_internal_ip = False  # the hub stands outside of the fleet's networks
c.DockerSpawner.host_ip = "127.0.0.1"
c.DockerSpawner.volumes = {"home-{username}": "/home/jovyan"}
c.DockerSpawner.notebook_dir = "/home/jovyan"
c.DockerSpawner.remove = True
c.DockerSpawner.mem_limit = "64M"
c.DockerSpawner.cpu_limit = 0.5
c.DockerSpawner.extra_create_kwargs = {"labels": {"class": "one"}}
c.Spawner.http_timeout = 30
