package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
)

const heartbeat = 5 * time.Second

// keepNode registers a node that takes no pods, and keeps it ready. When no node is ready Kubernetes holds itself to be
// cut off and evicts nothing; with this one ready, the loss of the real one is a loss.
func keepNode(kubeconfig, name string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for ; ; time.Sleep(heartbeat) {
		if err := beat(client.CoreV1().Nodes(), name); err != nil {
			fmt.Fprintf(os.Stderr, "node %s: %v: trying again in %s\n", name, err, heartbeat)
		}
	}
}

// beat says that the node is ready now, and creates it where it does not exist.
func beat(nodes typed.NodeInterface, name string) error {
	ctx := context.Background()
	node, err := nodes.Get(ctx, name, metav1.GetOptions{})
	if errors.IsNotFound(err) {
		taint := corev1.Taint{Key: "cappuccino.dev/witness", Effect: corev1.TaintEffectNoSchedule}
		node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{taint}}}
		node, err = nodes.Create(ctx, node, metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	node.Status.Conditions = []corev1.NodeCondition{{
		Type:              corev1.NodeReady,
		Status:            corev1.ConditionTrue,
		Reason:            "Witness",
		Message:           "it runs nothing",
		LastHeartbeatTime: metav1.Now(),
	}}
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}
