"""The private Ray of one machine is open to nobody else on the network."""

import ipaddress

import psutil


def test_a_private_ray_listens_on_this_machine_alone(ray_here):
    me = psutil.Process()
    ours = {me.pid, *(child.pid for child in me.children(recursive=True))}
    listening = [at for at in psutil.net_connections("tcp") if at.status == psutil.CONN_LISTEN and at.pid in ours]
    assert listening
    for at in listening:
        address = ipaddress.ip_address(at.laddr.ip)
        address = getattr(address, "ipv4_mapped", None) or address
        assert address.is_loopback, f"{psutil.Process(at.pid).name()} listens on {at.laddr.ip}:{at.laddr.port}"
