"""Chapters of cli_story.py about clusters and their nodes: outside of one, its beginning, its nodes, other beginnings.

Requests to the API itself say what the CLI cannot: malformed ones, and what a worker and an outsider answer.
"""

from __future__ import annotations

OUTSIDE = """
node ls
service ls
secret ls
config ls
stack ls
service create alpine
stack deploy -c {tmp}/stack.yml shop
swarm leave
swarm ca
swarm join-token worker
swarm unlock-key
swarm update --autolock
swarm unlock < SWMKEY-1-nonsense
swarm join --token SWMTKN-1-x {a1}:2377
swarm join
network create -d overlay early
network create --scope swarm early
swarm init --advertise-addr nowhere
swarm init --advertise-addr {a1} --data-path-port 80
swarm init --advertise-addr 0.0.0.0
swarm init --advertise-addr {a1} --listen-addr nowhere
swarm init --advertise-addr {a1} --data-path-addr nowhere
swarm init --advertise-addr {a1} --default-addr-pool 10.30.0.0/16 --default-addr-pool-mask-length 8
swarm init --availability odd --advertise-addr nowhere
stack config -c {tmp}/stack.yml
stack config --compose-file {tmp}/stack.yml --skip-interpolation
api GET /swarm
api GET /nodes
api GET /nodes/x
api DELETE /nodes/x
api POST /nodes/x/update?version=1 < {}
api POST /nodes/x/update?version=x < {}
api POST /nodes/x/update < {}
api GET /services
api GET /services?filters={
api GET /services?status=odd
api GET /services/x
api GET /services/x?insertDefaults=odd
api POST /services/create < {}
api POST /services/create < {
api POST /services/x/update?version=1 < {}
api POST /services/x/update?version=x < {}
api DELETE /services/x
api GET /services/x/logs
api GET /services/x/logs?stdout=1
api GET /tasks
api GET /tasks/x
api GET /tasks/x/logs?stdout=1
api GET /secrets
api GET /secrets/x
api DELETE /secrets/x
api POST /secrets/create < {}
api POST /secrets/create < {
api POST /secrets/x/update?version=1 < {}
api POST /secrets/x/update?version=x < {}
api GET /configs
api GET /configs/x
api DELETE /configs/x
api POST /configs/create < {}
api POST /configs/x/update?version=x < {}
api GET /swarm/unlockkey
api POST /swarm/unlock < {"UnlockKey": "x"}
api POST /swarm/unlock < {}
api POST /swarm/unlock < {
api POST /swarm/update?version=1 < {}
api POST /swarm/update?version=x < {}
api POST /swarm/update?version=1&rotateWorkerToken=odd < {}
api POST /swarm/leave
api POST /swarm/leave?force=1
api POST /swarm/leave?force=odd
api GET /networks/x?scope=swarm
api POST /swarm/join < {
api POST /swarm/join < {"ListenAddr": "0.0.0.0:2377"}
api POST /swarm/join < {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": []}
api POST /swarm/join < {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["{a1}:2377"], "JoinToken": "odd"}
api POST /swarm/join < {"ListenAddr": "odd:odd", "RemoteAddrs": ["{a1}:2377"], "JoinToken": "odd"}
api POST /swarm/join < {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["{a1}:2377"], "JoinToken": "odd", \
    "AdvertiseAddr": "{a1}", "Availability": "odd"}
api POST /swarm/join < {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": "{a1}:2377", "JoinToken": "odd"}
api POST /swarm/init < {
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "odd"}
api POST /swarm/init < {"ListenAddr": "odd", "AdvertiseAddr": "{a1}"}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:odd", "AdvertiseAddr": "{a1}"}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a1}", "DataPathPort": 80}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a1}", "DataPathPort": -1}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a1}", "DataPathPort": "4789"}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a1}", \
    "DefaultAddrPool": ["odd"], "SubnetSize": 24}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a1}", \
    "DefaultAddrPool": ["10.30.0.0/16"], "SubnetSize": 8}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a1}", \
    "DefaultAddrPool": ["10.30.0.0/16"], "SubnetSize": 33}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a1}", \
    "DefaultAddrPool": ["fd00::/64"], "SubnetSize": 26}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a1}", "Availability": "odd"}
api GET /swarm
"""

FOUND = """
swarm init --advertise-addr {a1}:2377 --listen-addr {a1}:2377 --data-path-addr {a1} --data-path-port 4790 \
    --default-addr-pool 10.30.0.0/16 --default-addr-pool-mask-length 26 --task-history-limit 3 --cert-expiry 720h \
    --dispatcher-heartbeat 7s --max-snapshots 2 --snapshot-interval 5000 --availability active
swarm init
info --format "{{json .Swarm}}"
swarm join-token worker
swarm join-token --rotate manager
swarm join-token odd
swarm ca
swarm ca --detach
swarm ca --rotate --cert-expiry 800h --quiet ?
swarm ca --rotate -d -q ?
swarm ca --rotate --ca-cert {tmp}/cred.json
swarm ca --rotate --ca-key {tmp}/cred.json
swarm ca --ca-cert {tmp}/cred.json
swarm ca --rotate --external-ca protocol=cfssl,url=https://{a1}:1/sign
swarm ca --rotate --external-ca protocol=odd,url=https://{a1}:1/sign
info --format {{.Swarm.Cluster.RootRotationInProgress}} => false
= worker swarm join-token --quiet worker
= manager swarm join-token -q manager
swarm update --task-history-limit 2 --cert-expiry 2160h --dispatcher-heartbeat 5s --max-snapshots 1 \
    --snapshot-interval 10000
info --format "{{json .Swarm.Cluster.Spec}}"
swarm update --cert-expiry 1m
swarm update --external-ca odd
2: swarm join --token {worker} --advertise-addr {a2} --listen-addr {a2}:2377 --data-path-addr {a2} --availability \
    pause {a1}:2377
3: swarm join --token {manager} {a1}:2377
2: swarm join --token {worker} {a1}:2377
2: node ls
2: swarm ca
info --format "{{json .Swarm}}" => .
2: api GET /swarm
2: api GET /swarm/unlockkey
2: api GET /services?status=odd
2: api POST /services/create < {"Name": "x"}
2: api POST /services/x/update?version=x < {}
2: api DELETE /nodes/x
2: api POST /swarm/update?version=1 < {}
2: api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a2}"}
2: api POST /swarm/unlock < {"UnlockKey": "x"}
2: api GET /tasks/x/logs?stdout=1
2: info --format "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.Nodes}} {{.Swarm.Managers}}"
2: info --format "{{json .Swarm.Cluster}} {{len .Swarm.RemoteManagers}} {{json .Swarm.Warnings}}"
2: swarm leave ?
node ls --format {{.Status}} --filter name=host2 => Down
node rm host2
2: swarm join --token {worker} {a1}:2377
"""

NODES = """
node ls --format {{.Status}} => ^Ready Ready Ready$
node ls --format {{.ManagerStatus}} --filter name=host3 => Reachable
3: swarm leave
swarm leave
node ls
node ls -f role=worker --format {{.Hostname}}
node ls --filter membership=accepted --quiet
node ls --filter role=odd
node ls --filter odd=odd
node ls -f name=host2 -q
node inspect host2
node inspect --format {{.Spec.Role}} host2
node inspect -f "{{json .Spec}}" self
node inspect --pretty host2
node inspect nope
node update --label-add disk=ssd --label-add x host2
node ls --filter node.label=disk=ssd --format {{.Hostname}}
node update --label-rm x --label-rm nope host2
node update --availability drain host2
node update --availability odd host2
node update --role odd host2
node inspect --format "{{json .Spec}}" host2
node update --availability active host2
node update --label-rm disk host2
node update nope
node demote host3
node ls --format {{.Hostname}},{{.ManagerStatus}} --filter name=host3 => ^host3,$
node promote host3
node promote host3 host1
node ls --format {{.ManagerStatus}} --filter name=host3 => Reachable
node update --role worker host3
node ls --format {{.Hostname}},{{.ManagerStatus}} --filter name=host3 => ^host3,$
node demote host1 ?
node demote nope
node rm host2
node rm host1
node rm nope
node ps
node ps nope
3: swarm leave ?
node rm -f host3
3: swarm join --token {worker} {a1}:2377
node ls --format {{.Status}} => ^Ready Ready Ready$
node rm --force nope
"""

OTHERS = """
swarm init --advertise-addr {a1} --external-ca protocol=cfssl,url=https://{a1}:1/sign --availability pause
swarm leave --force
swarm init --advertise-addr {a1} --autolock
swarm unlock-key
swarm unlock-key --quiet
swarm unlock-key -q
swarm unlock-key --rotate
swarm unlock < nothing
swarm update --autolock=false
swarm unlock-key
swarm init --force-new-cluster --advertise-addr {a1} ?
node ls --format {{.Hostname}},{{.ManagerStatus}} => Leader
swarm leave -f
swarm init --advertise-addr {a1} ?
api POST /swarm/update?version=1&rotateWorkerToken=1 < {"Name": "default"}
api POST /swarm/init < {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "{a1}"}
api POST /swarm/join < {"ListenAddr": "0.0.0.0:2377", "RemoteAddrs": ["{a1}:2377"], "JoinToken": "odd"}
api POST /swarm/unlock < {"UnlockKey": "x"}
api GET /swarm/unlockkey
info --format "{{json .Swarm.RemoteManagers}} {{json .Swarm.Warnings}} {{.Swarm.Nodes}} {{.Swarm.Managers}}"
info --format {{.Swarm.NodeAddr}}
api POST /services/create < {"Name": "p1", "TaskTemplate": {"ContainerSpec": {"Image": "redis:3.0.6"}}, \
    "Mode": {"Replicated": {"Replicas": 0}}, "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8090}]}}
api POST /services/create < {"Name": "p2", "TaskTemplate": {"ContainerSpec": {"Image": "redis:3.0.6"}}, \
    "Mode": {"Replicated": {"Replicas": 0}}, "EndpointSpec": {"Ports": [{"TargetPort": 81, "PublishedPort": 8090}]}}
api POST /services/create < {"Name": "p3", "TaskTemplate": {"ContainerSpec": {"Image": "redis:3.0.6"}}, \
    "Mode": {"Replicated": {"Replicas": 0}}, \
    "EndpointSpec": {"Ports": [{"TargetPort": 81, "PublishedPort": 8090, "Protocol": "udp"}]}}
api POST /services/create < {"Name": "p4", "TaskTemplate": {"ContainerSpec": {"Image": "redis:3.0.6"}}, \
    "Mode": {"Replicated": {"Replicas": 0}}, \
    "EndpointSpec": {"Ports": [{"TargetPort": 81, "PublishedPort": 8090, "PublishMode": "host"}]}}
api POST /services/create < {"Name": "p5", "TaskTemplate": {"ContainerSpec": {"Image": "redis:3.0.6"}}, \
    "Mode": {"Replicated": {"Replicas": 0}}, \
    "EndpointSpec": {"Ports": [{"TargetPort": 81, "PublishedPort": 8091, "PublishMode": "host"}]}}
api POST /services/create < {"Name": "p7", "TaskTemplate": {"ContainerSpec": {"Image": "redis:3.0.6"}}, \
    "Mode": {"Replicated": {"Replicas": 0}}, "EndpointSpec": {"Ports": [{"TargetPort": 82, "PublishedPort": 8091}]}}
service ls --format "{{.Name}} {{.Ports}}"
service update --detach --publish-add 8091:80 p1
api POST /services/create < {"Name": "p6", "TaskTemplate": {"ContainerSpec": {"Image": "redis:3.0.6"}}, \
    "Mode": {"Replicated": {"Replicas": 0}}, \
    "EndpointSpec": {"Ports": [{"TargetPort": 82, "PublishedPort": 8091, "PublishMode": "host"}]}}
service update --detach --publish-rm 80 p1
service update --detach --publish-add 8090:82 p3
service ls --format "{{.Name}} {{.Ports}}"
service inspect p3
service rm p1 p3 p5 p6
swarm leave -f
"""
