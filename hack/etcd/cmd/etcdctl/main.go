// Command etcdctl is etcd's command line client of the version that go.mod pins, unchanged.
package main

import "go.etcd.io/etcd/etcdctl/v3/ctlv3"

func main() {
	ctlv3.MustStart()
}
