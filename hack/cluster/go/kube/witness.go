package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/utils/clock"
)

const (
	leaseSeconds = 20
	renewEvery   = 5 * time.Second
)

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
	ctx, nodes := context.Background(), client.CoreV1().Nodes()
	taint := corev1.Taint{Key: "cappuccino.dev/witness", Effect: corev1.TaintEffectNoSchedule}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{taint}}}
	if _, err := nodes.Create(ctx, node, metav1.CreateOptions{}); err != nil && !errors.IsAlreadyExists(err) {
		return err
	}
	if node, err = nodes.Get(ctx, name, metav1.GetOptions{}); err != nil {
		return err
	}
	now := metav1.Now()
	node.Status.Conditions = []corev1.NodeCondition{{
		Type:               corev1.NodeReady,
		Status:             corev1.ConditionTrue,
		Reason:             "Witness",
		Message:            "it runs nothing",
		LastHeartbeatTime:  now,
		LastTransitionTime: now,
	}}
	if _, err := nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return err
	}
	lease.NewController(clock.RealClock{}, client, name, leaseSeconds, nil, renewEvery, name, corev1.NamespaceNodeLease, nil).Run(ctx)
	return nil
}
