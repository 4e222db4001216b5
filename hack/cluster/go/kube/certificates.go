package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"

	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// writeCertificates writes into the directory a new authority (ca.crt; its key is not kept), a serving certificate for
// the addresses (serving.crt, .key: API server and kubelet), the API server's client certificate for the kubelet
// (kubelet-client.crt, .key) and the key that signs service account tokens (accounts.key).
func writeCertificates(directory string, addresses []string) error {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	authority, err := cert.NewSelfSignedCACert(cert.Config{CommonName: "cappuccino-cluster"}, authorityKey)
	if err != nil {
		return err
	}
	if err := cert.WriteCert(filepath.Join(directory, "ca.crt"), certificatePEM(authority.Raw)); err != nil {
		return err
	}
	serving := x509.Certificate{
		Subject:     pkix.Name{CommonName: addresses[0]},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, address := range addresses {
		serving.IPAddresses = append(serving.IPAddresses, net.ParseIP(address))
	}
	client := x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for name, template := range map[string]x509.Certificate{"serving": serving, "kubelet-client": client} {
		if err := issue(filepath.Join(directory, name), template, authority, authorityKey); err != nil {
			return err
		}
	}
	accounts, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return err
	}
	return keyutil.WriteKey(filepath.Join(directory, "accounts.key"), accounts)
}

// issue writes path.crt and path.key.
func issue(path string, template x509.Certificate, authority *x509.Certificate, authorityKey crypto.Signer) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	template.NotBefore = authority.NotBefore
	template.NotAfter = authority.NotAfter
	template.KeyUsage = x509.KeyUsageDigitalSignature
	keyPEM, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return err
	}
	key, err := keyutil.ParsePrivateKeyPEM(keyPEM)
	if err != nil {
		return err
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, authority, key.(crypto.Signer).Public(), authorityKey)
	if err != nil {
		return err
	}
	if err := cert.WriteCert(path+".crt", certificatePEM(raw)); err != nil {
		return err
	}
	return keyutil.WriteKey(path+".key", keyPEM)
}

func certificatePEM(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: raw})
}
