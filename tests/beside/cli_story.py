"""What test_cli_beside_swarm.py types into the docker CLI, on this project's cluster and on a real Docker Swarm.

A chapter is a list of lines. A line is a command without `docker`:

    2: node ls                  typed on host2 (host1 when no host is named)
    secret create key - < text  the text is its input
    x => pattern                asked until the output matches the pattern; only the last output counts
    x => pattern !              the command does not end by itself; it is stopped when its output has the pattern
    x ?                         the output is not compared, only whether it succeeded
    = name x                    the output becomes {name} in later lines
    api POST /x < {"A": "b"}    a request to the API itself: status and answer

Nothing may hang on what a cluster chooses among equals: a service whose nodes are shown is bound to one, and what is
settled behind an update's back (Swarm allocates ports and addresses after its answer) is waited for.

{a1} is host1's address, {tmp} the folder with FILES. All lists of options come from the CLI's own --help
(test_cli_beside_swarm.py), and every one has to occur in some line.
"""

from __future__ import annotations

from tests.beside.membership_story import FOUND, NODES, OTHERS, OUTSIDE

FILES = {
    "stack.yml": """
version: "3.13"
services:
  web:
    image: redis:3.0.6
    networks: [front]
    ports: ["8071:6379"]
    secrets: [{source: password, target: pass, mode: 0400}]
    configs: [{source: settings, target: /etc/settings.ini}]
    environment: {PLACE: "{{.Node.Hostname}}/{{.Task.Slot}}"}
    command: ["redis-server", "--x"]
    healthcheck: {test: ["CMD", "true"], interval: 1s, timeout: 2s, retries: 3, start_period: 1s}
    logging: {driver: json-file, options: {max-size: 1m}}
    stop_grace_period: 2s
    deploy:
      replicas: 2
      labels: {tier: front}
      update_config: {parallelism: 0, monitor: 100ms, order: start-first}
      rollback_config: {parallelism: 2}
      restart_policy: {condition: on-failure, delay: 1s, max_attempts: 4, window: 60s}
      resources: {limits: {cpus: "0.5", memory: 64M, pids: 40}, reservations: {cpus: "0.1", memory: 8M}}
      placement:
        constraints: ["node.role==manager"]
        preferences: [{spread: node.labels.disk}]
        max_replicas_per_node: 4
  every:
    image: redis:3.0.6
    networks: {back: {aliases: [database]}}
    deploy: {mode: global, endpoint_mode: dnsrr}
  once:
    image: alpine
    command: ["true"]
    deploy: {mode: replicated-job, placement: {constraints: ["node.hostname==host1"]}}
WORKER
networks:
  front: {driver_opts: {a: b}, labels: {c: d}}
  back: {attachable: true, ipam: {config: [{subnet: 10.77.0.0/24}]}}
secrets: {password: {file: ./password, labels: {a: b}}}
configs: {settings: {file: ./settings.ini}}
""".replace("WORKER", '  worker: {image: "redis:3.0.6", deploy: {replicas: 0}}'),
    "password": "s3cret",
    "settings.ini": "colour=blue\n",
    "env": "FROM_FILE=yes\nSECOND=2\n",
    "cred.json": "{}",
    "missing.yml": """
version: "3.8"
services: {web: {image: alpine, networks: [gone]}}
networks: {gone: {external: true}}
""",
    "old.yml": """
version: "3.8"
services: {web: {image: alpine, build: ., devices: ["/dev/null:/dev/null"]}}
""",
}
FILES["less.yml"] = "\n".join(line for line in FILES["stack.yml"].splitlines() if not line.startswith("  worker"))

SECRETS = """
secret create key - < hidden
secret create key - < hidden
secret create --label a=b -l c=d labelled {tmp}/password
secret create --template-driver golang templated - < {{.Service.Name}}
secret create --driver odd -d odd driven
secret create empty - <
secret create bad/name - < x
secret create missing {tmp}/nothing
secret inspect key
secret inspect --pretty labelled
secret inspect --format {{.Spec.Name}} key
secret inspect -f "{{json .Spec}}" templated
secret inspect nope
secret ls --format {{.Name}} --filter name=l
secret ls -f label=a=b --format '{{.Name}},{{.Driver}},{{.Label "a"}},{{.Label "c"}}'
secret ls --filter odd=odd
secret ls
secret ls -q
secret ls --quiet --filter label=nope
secret rm nope
secret rm labelled templated driven
config create conf - < x=1
config create conf - < x=1
config create --label a=b -l c=d labelled {tmp}/settings.ini
config create --template-driver golang templated - < {{.Service.Name}}
config create empty - <
config create bad/name - < x
config inspect conf
config inspect --pretty labelled
config inspect --format {{.Spec.Name}} conf
config inspect -f "{{json .Spec}}" templated
config inspect nope
config ls --format {{.Name}} --filter name=l
config ls -f label=a=b --format '{{.Name}},{{.Label "a"}},{{.Label "c"}}'
config ls --filter odd=odd
config ls
config ls -q
config ls --quiet --filter label=nope
config rm nope
config rm labelled templated
"""

CREATE = "service create --detach --quiet --no-resolve-image --name"

SERVICES = f"""
network create --driver overlay --subnet 10.66.0.0/24 --gateway 10.66.0.1 --attachable --label n=m back
network create -d overlay --internal --opt a=b inner
network create -d overlay back
network create -d overlay host
network ls --filter scope=swarm --format {{{{.Name}}}},{{{{.Driver}}}},{{{{.Scope}}}}
network inspect back
network create -d overlay --ingress second
network create -d overlay --ingress --attachable second
network create -d overlay --subnet 10.66.0.0/99 odd
network create -d overlay --label com.docker.swarm.predefined=true odd
network rm ingress < n
network inspect ingress
network inspect host --format {{{{.Scope}}}}
network ls --filter driver=overlay --filter label=n=m --format {{{{.Name}}}}
network rm host
network ls --filter dangling=true --filter scope=swarm --format {{{{.Name}}}}
{CREATE} full --replicas 0 --cap-add NET_ADMIN --cap-drop CHOWN --config \
    source=conf,target=/etc/conf,mode=0400,uid=5,gid=6 --constraint node.role==manager --constraint \
    node.labels.x!=y --container-label cl=1 --dns 1.1.1.1 --dns-option ndots:2 --dns-search example.org \
    --endpoint-mode vip --entrypoint "sleep -x" --env A=b --env-file {{tmp}}/env --generic-resource gpu=1 --group \
    12 --health-cmd "true it" --health-interval 3s --health-retries 4 --health-start-period 5s --health-timeout 2s \
    --host one:1.2.3.4 --hostname "h-{{{{.Task.Slot}}}}" --init --isolation default --label l=1 --limit-cpu 0.5 \
    --limit-memory 64m --limit-pids 50 --log-driver json-file --log-opt max-size=1m --mount \
    type=volume,source=v,target=/v,volume-label=a=b --mount \
    type=bind,source=/tmp,target=/b,bind-propagation=rslave,readonly --mount \
    type=tmpfs,target=/t,tmpfs-size=1000000,tmpfs-mode=1770 --network name=back,alias=al,driver-opt=a=b \
    --network inner --placement-pref spread=node.labels.disk --publish 8070:80 --publish \
    published=8071,target=81,protocol=udp,mode=host --read-only --replicas-max-per-node 3 --reserve-cpu 0.1 \
    --reserve-memory 8m --restart-condition on-failure --restart-delay 1s --restart-max-attempts 3 --restart-window \
    30s --rollback-delay 1s --rollback-failure-action continue --rollback-max-failure-ratio 0.1 --rollback-monitor \
    2s --rollback-order start-first --rollback-parallelism 2 --secret source=key,target=k,mode=0440,uid=7,gid=8 \
    --stop-grace-period 3s --stop-signal SIGINT --sysctl net.ipv4.ip_forward=1 --tty --ulimit nofile=100:200 \
    --update-delay 2s --update-failure-action rollback --update-max-failure-ratio 0.2 --update-monitor 1s \
    --update-order start-first --update-parallelism 3 --user 1:2 --with-registry-auth --workdir /w alpine 1d
service inspect --format "{{{{json .Endpoint.Ports}}}}" full => 8070
service inspect full
service inspect --pretty full
{CREATE} short -d -q -e A=b -l l=1 -p 8072:80 -t -u 1 -w /w --replicas 0 alpine
service inspect --format "{{{{json .Endpoint.Ports}}}}" short => 8072
service inspect short
service create --no-resolve-image --quiet --detach=false --name other --no-healthcheck --replicas 1 \
    --constraint node.hostname==host1 --stop-grace-period 0s --update-monitor 100ms redis:3.0.6
service inspect other
{CREATE} roll --replicas 0 --credential-spec file://x --isolation hyperv alpine
{CREATE} job --mode replicated-job --replicas 3 --max-concurrent 2 --restart-delay 0s alpine true
service ls --filter name=job --format {{{{.Mode}}}},{{{{.Replicas}}}} => 3/3
service inspect job
{CREATE} gjob --mode global-job alpine true
service ls --filter name=gjob --format {{{{.Mode}}}},{{{{.Replicas}}}} => 3/3
service inspect gjob
{CREATE} glob --mode global redis:3.0.6
service ls --filter name=glob --format {{{{.Mode}}}},{{{{.Replicas}}}} => 3/3
service inspect glob
ps --filter is-task=true --filter label=com.docker.swarm.service.name=glob --format {{{{.Image}}}},{{{{.Names}}}}
ps --filter is-task=false --format {{{{.Image}}}}
service ps glob --format {{{{.Node}}}},{{{{.DesiredState}}}},{{{{.Image}}}}
{CREATE} dns --endpoint-mode dnsrr --network back --replicas 0 alpine
service inspect dns
"""

REFUSED = f"""
{CREATE} full alpine
{CREATE} bad_name! alpine
{CREATE} x --replicas -1 alpine
{CREATE} x --mode odd alpine
{CREATE} x --mode global --replicas 3 alpine
{CREATE} x --constraint foo alpine
{CREATE} x --constraint node.role=manager alpine
{CREATE} x --publish 8070:80 alpine
{CREATE} x --publish published=8071,target=1,protocol=udp alpine
{CREATE} x --publish 80:80 --endpoint-mode dnsrr alpine
{CREATE} x --endpoint-mode odd alpine
{CREATE} x --limit-memory 1m alpine
{CREATE} x --limit-cpu 0.0001 alpine
{CREATE} x --network nowhere alpine
{CREATE} x --network ingress alpine
{CREATE} x --secret nope alpine
{CREATE} x --config nope alpine
{CREATE} x --secret source=key,target=a --secret source=key,target=a alpine
{CREATE} x --mount type=bind,source=/x,target=/y --mount type=bind,source=/z,target=/y alpine
{CREATE} x --mount type=odd,source=/x,target=/y alpine
{CREATE} x --restart-condition odd alpine
{CREATE} x --update-failure-action odd alpine
{CREATE} x --update-order odd alpine
{CREATE} x --update-max-failure-ratio 2 alpine
{CREATE} x --health-cmd x --health-interval 1us alpine
{CREATE} x --mode replicated-job --update-delay 1s alpine
{CREATE} x --stop-grace-period -1s --replicas 0 alpine
service rm x
{CREATE} x --placement-pref odd=x alpine
{CREATE} x BAD/Image
service create --oom-score-adj 5 alpine
service create --health-start-interval 5s alpine
service ls --format {{{{.Name}}}},{{{{.Mode}}}},{{{{.Image}}}},{{{{.Ports}}}}
service inspect nope
service inspect --pretty nope
service ps nope
service rm nope
service scale nope=1
service scale glob=2
service scale full
service scale full=x
service update nope
service update --image BAD/Image full
service update --publish-add 8072:1 full
service rollback short
service update --rollback short
service logs nope
service update --health-start-interval 5s full
service update --oom-score-adj 5 full
"""

UPDATE = "service update --detach --quiet --no-resolve-image"

UPDATES = f"""
secret create key2 - < other
config create conf2 - < other
{UPDATE} --args "2d 3d" --entrypoint "x y" --cap-add SYS_TIME --cap-drop KILL --config-rm conf --config-add \
    source=conf2,target=/c2 --constraint-add node.id!=x --constraint-rm node.role==manager --container-label-add \
    cl2=2 --container-label-rm cl --dns-add 2.2.2.2 --dns-rm 1.1.1.1 --dns-option-add timeout:1 --dns-option-rm \
    ndots:2 --dns-search-add example.net --dns-search-rm example.org --env-add C=d --env-rm A --force \
    --generic-resource-add fpga=2 --generic-resource-rm gpu --group-add 13 --group-rm 12 --health-cmd other \
    --health-interval 4s --health-retries 5 --health-start-period 6s --health-timeout 3s --host-add two:1.2.3.5 \
    --host-rm one:1.2.3.4 --hostname other --image redis:3.0.7 --init=false --isolation default --label-add l2=2 \
    --label-rm l --limit-cpu 0.6 --limit-memory 65m --limit-pids 51 --log-driver json-file --log-opt max-size=2m \
    --mount-add type=tmpfs,target=/t2 --mount-rm /t full
service inspect full
{UPDATE} --network-rm inner --placement-pref-add spread=node.labels.rack --placement-pref-rm \
    spread=node.labels.disk --publish-add 8073:83 --publish-rm 80 --read-only=false --replicas 0 \
    --replicas-max-per-node 4 --reserve-cpu 0.2 --reserve-memory 9m --restart-condition any --restart-delay 2s \
    --restart-max-attempts 4 --restart-window 31s --rollback-delay 2s --rollback-failure-action pause \
    --rollback-max-failure-ratio 0.2 --rollback-monitor 3s --rollback-order stop-first --rollback-parallelism 3 \
    --secret-rm key --secret-add source=key2,target=k2 --stop-grace-period 4s --stop-signal SIGTERM --sysctl-add \
    net.ipv4.ip_nonlocal_bind=1 --sysctl-rm net.ipv4.ip_forward --tty=false --ulimit-add nproc=5 --ulimit-rm nofile \
    --update-delay 3s --update-failure-action continue --update-max-failure-ratio 0.3 --update-monitor 2s \
    --update-order stop-first --update-parallelism 4 --user 3 --with-registry-auth --workdir /x full
service inspect --format "{{{{json .Endpoint.Ports}}}}" full => 8073
service inspect --format "{{{{len .Endpoint.VirtualIPs}}}}" full => 2
service inspect full
service inspect --pretty full
{UPDATE} --network-add name=inner,alias=again --endpoint-mode vip --no-healthcheck full
service inspect --format "{{{{json .Spec.TaskTemplate.ContainerSpec}}}}" full
service update -d -q --no-resolve-image -t -u 9 -w /y short
service inspect --format "{{{{json .Spec.TaskTemplate.ContainerSpec}}}}" short
service update -d -q --credential-spec file://z roll
service rollback --detach --quiet full
service inspect --format "{{{{json .UpdateStatus}}}}" full => rollback_completed
service inspect --format "{{{{len .Endpoint.VirtualIPs}}}}" full => 2
service inspect full
service rollback -d -q full
service update -d -q --rollback full
service inspect --format "{{{{json .Spec.UpdateConfig}}}}" full
service update -d -q --max-concurrent 3 job
service inspect --format "{{{{json .Spec.Mode}}}}" job
service scale --detach full=0 short=0
service scale -d other=2
service ps --filter desired-state=running other --format {{{{.CurrentState}}}} => ^Running[^R]*Running[^R]*$
service scale other=1
service update --image redis:3.0.7 --no-resolve-image other
service ps --filter desired-state=running --format {{{{.Name}}}},{{{{.Image}}}},{{{{.CurrentState}}}} other => \
    ^other.1,redis:3.0.7,Running
service rollback --quiet other
service inspect --format "{{{{json .UpdateStatus}}}}" other => rollback_completed
service inspect other
service update --image redis:broken --no-resolve-image --update-monitor 3s other
service inspect --format {{{{.UpdateStatus.State}}}} other
service update --image redis:3.0.7 --no-resolve-image --update-failure-action rollback --rollback-monitor 100ms other
service update --image redis:broken --no-resolve-image other
service inspect --format "{{{{.Spec.TaskTemplate.ContainerSpec.Image}}}} {{{{.UpdateStatus.State}}}}" other => \
    ^redis:3.0.7 rollback_completed$
service update --image redis:3.0.6 --no-resolve-image --quiet other
service ls
service ls -q -f name=full
service ls --quiet --filter mode=global
service ls --filter label=l2=2 --format {{{{.Name}}}}
service ls --filter mode=odd
service ls --filter odd=odd
service inspect -f {{{{.Spec.Name}}}} full
service ps -q -f desired-state=running other
service ps --quiet --no-trunc --no-resolve --filter name=other.1 other
service ps --no-trunc -f desired-state=running other
service ps --filter node=host1 --format {{{{.Name}}}} glob
service ps --filter node=nope glob
service ps --filter odd=odd glob
node ps --filter name=glob --format {{{{.Image}}}},{{{{.DesiredState}}}} host2
node ps -f desired-state=running -q --no-resolve --no-trunc host2
node ps --quiet --filter odd=odd host2
"""

LOGS = f"""
{CREATE} noisy --env WHO=me --container-label who=us --log-driver json-file --log-opt labels=who --log-opt env=WHO \
    --replicas 3 --restart-condition none alpine sh -c "echo one; echo two >&2; echo three"
service ps noisy --format {{{{.CurrentState}}}} => ^Complete[^C]*Complete[^C]*Complete[^C]*$
service logs noisy
service logs --no-task-ids --tail 1 noisy ?
service logs -n 9 --raw noisy
service logs --no-resolve --no-trunc noisy
service logs --details --timestamps noisy
service logs -t --since 2100-01-01T00:00:00Z noisy
service logs --since 1h noisy
service logs --since odd noisy
service logs --tail odd noisy
service logs --tail -5 noisy
= task service ps -q -f name=noisy.1 --no-trunc noisy
inspect --format "{{{{.Status.State}}}} {{{{.DesiredState}}}} {{{{.NodeID}}}} {{{{.Slot}}}} {{{{.ID}}}}" {{task}}
inspect --type task --format "{{{{json .Spec}}}}" {{task}}
service logs {{task}}
service logs --raw {{task}}
service logs --follow --no-task-ids noisy => one.*one.*one !
service logs -f --raw {{task}} => one !
service rm noisy
"""

STACKS = """
stack deploy -c {tmp}/missing.yml shop
stack deploy -c {tmp}/nothing.yml shop
stack deploy --resolve-image never -c {tmp}/old.yml --detach=true old ?
stack rm --detach=true old ?
stack deploy --detach=true --quiet --resolve-image never --compose-file {tmp}/stack.yml shop
stack services shop --format {{.Replicas}} --filter name=shop_web => 2/2
stack services shop --format {{.Replicas}} --filter name=shop_every => 3/3
stack services shop --format {{.Replicas}} --filter name=shop_once => 1/1
stack ls
stack ls --format {{.Name}},{{.Services}}
stack services shop
stack services -q -f name=shop_web shop
stack services --quiet --filter label=tier=front shop
stack services nope
stack ps --format {{.Name}},{{.Image}},{{.DesiredState}} -f name=shop_web shop
stack ps -q -f node=host2 shop
stack ps --quiet --no-resolve --no-trunc --filter desired-state=running shop
stack ps nope
service inspect shop_web
service inspect shop_every
service inspect shop_once
network rm shop_front
network inspect --verbose shop_front
ps --filter network=shop_front --format {{.Image}}
network inspect shop_front
network inspect shop_back
secret inspect shop_password
config inspect shop_settings
stack deploy -d -q --with-registry-auth --resolve-image changed -c {tmp}/stack.yml shop
stack deploy --detach=true --resolve-image never --prune -c {tmp}/less.yml shop
stack services shop --format {{.Name}}
stack rm -d --detach=true nope
stack rm shop
stack ls
"""

END = """
service rm full short other roll glob job gjob dns
secret rm key key2
config rm conf conf2
network rm back inner => back ?
service ls
network create -d overlay unused ?
system df --format {{.Type}}
system prune --force ?
network ls --filter name=unused --format {{.Name}}
2: swarm leave ?
3: swarm leave ?
swarm leave
swarm leave --force
info --format {{.Swarm.LocalNodeState}}
"""

CHAPTERS = {
    "outside a cluster": OUTSIDE,
    "a cluster is made": FOUND,
    "nodes": NODES,
    "secrets and configs": SECRETS,
    "services are created": SERVICES,
    "services are refused": REFUSED,
    "services are updated": UPDATES,
    "logs": LOGS,
    "stacks": STACKS,
    "the end": END,
    "other beginnings": OTHERS,
}
