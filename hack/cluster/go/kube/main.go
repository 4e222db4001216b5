// Command kube is Kubernetes in one file: `kube kube-apiserver ...`, `kube kubelet ...`, `kube etcd ...`. `kube
// certificates` writes what they need to trust each other; `kube witness` is a node without pods.
//
// The parts share most of their packages, so they are built and linked once. Versions are pinned in go.mod, which
// also pins kubectl, a tool of this module.
package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	_ "time/tzdata" // CronJobs may name a time zone, and a slim machine has no database of them

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var parts = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	// A plain context: the command installs the signal handler itself, and a second one would panic.
	"kubelet": func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	if os.Getenv("KUBE_END_WITH_STDIN") != "" {
		go endWithStdin()
	}
	if len(os.Args) > 1 {
		os.Args = os.Args[1:]
	}
	if newCommand, known := parts[os.Args[0]]; known {
		os.Exit(cli.Run(newCommand()))
	}
	switch {
	case os.Args[0] == "etcd":
		etcdmain.Main(os.Args)
	case os.Args[0] == "certificates" && len(os.Args) > 2:
		if err := writeCertificates(os.Args[1], os.Args[2:]); err != nil {
			fail(1, "certificates in %s: %v", os.Args[1], err)
		}
	case os.Args[0] == "witness" && len(os.Args) == 3:
		if err := keepNode(os.Args[1], os.Args[2]); err != nil {
			fail(1, "node %s: %v", os.Args[2], err)
		}
	default:
		fail(2, "usage: kube certificates DIRECTORY ADDRESS..., kube witness KUBECONFIG NODE, or kube PART FLAG... with PART etcd, %s",
			strings.Join(slices.Sorted(maps.Keys(parts)), ", "))
	}
}

// endWithStdin ends the process when the pipe that its parent holds closes, which it does however the parent ends.
func endWithStdin() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	fail(1, "the parent has ended")
}

func fail(code int, format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(code)
}
